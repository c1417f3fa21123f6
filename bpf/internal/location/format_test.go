// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"
)

// chunk is a PNG chunk.
func pngPart(name, data string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	b = append(append(b, name...), data...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
}

// pngWith is a PNG with chunks after its header.
func pngWith(chunks ...[]byte) []byte {
	base := pngBase()
	const header = 8 + 25
	return append(append(bytes.Clone(base[:header]), bytes.Join(chunks, nil)...), base[header:]...)
}

func deflate(s string) string {
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	_, _ = z.Write([]byte(s))
	_ = z.Close()
	return b.String()
}

// profile is a raw profile: what old programs put into a PNG.
func profile(name, data string) string {
	digits := hex.EncodeToString([]byte(data))
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n%8d", name, len(data))
	for i := 0; i < len(digits); i += 72 {
		b.WriteString("\n" + digits[i:min(i+72, len(digits))])
	}
	return b.String() + "\n"
}

// TestPNG looks for location in a PNG, and that Go's decoder, which checks the
// checksum of every chunk, takes what is left.
func TestPNG(t *testing.T) {
	exif := string(exifFile(binary.BigEndian))
	for name, b := range map[string][]byte{
		"eXIf":         pngWith(pngPart("eXIf", exif)),
		"XMP":          pngWith(pngPart("iTXt", "XML:com.adobe.xmp\x00\x00\x00\x00\x00"+xmpText+strings.Repeat(" ", 100)+"<?xpacket end='w'?>")),
		"tEXt profile": pngWith(pngPart("tEXt", "Raw profile type exif\x00"+profile("exif", idExif+exif))),
		"zTXt profile": pngWith(pngPart("zTXt", "Raw profile type exif\x00\x00"+deflate(profile("exif", idExif+exif)))),
		"iTXt profile": pngWith(pngPart("iTXt", "Raw profile type APP1\x00\x00\x00\x00\x00"+profile("generic", idXMP+xmpText))),
		"8BIM profile": pngWith(pngPart("zTXt", "Raw profile type 8bim\x00\x00"+deflate(profile("8bim", irb(resExif1, exif))))),
		"zipped XMP":   pngWith(pngPart("iTXt", "XML:com.adobe.xmp\x00\x01\x00\x00\x00"+deflate(xmpText))),
	} {
		t.Run(name, func(t *testing.T) { samePixels(t, b, checkBlanked(t, b)) })
	}
}

// TestPNGChecksum looks at chunks that have too little to choose from: the
// checksum breaks, and the location is gone all the same.
func TestPNGChecksum(t *testing.T) {
	bo := binary.BigEndian
	few := tiffFile(bo, nil, []ifdEntry{pointer(tagGPSIFD, 1)}, []ifdEntry{rationals(bo, 4, 11, 1, 34, 1, 5678, 100)})
	for name, b := range map[string][]byte{
		"few":  pngWith(pngPart("eXIf", string(few))),
		"key":  pngWith(pngPart("tEXt", "exif:GPSLatitude\x0011/1, 34/1, 11,34.946E")),
		"zxIf": pngWith(pngPart("zxIf", "\x00\x00\x00\x00\x00"+deflate(string(exifFile(bo))))),
	} {
		t.Run(name, func(t *testing.T) { checkBlanked(t, b) })
	}
}

// TestSolve changes checksums at will.
func TestSolve(t *testing.T) {
	data := bytes.Repeat([]byte("some text of any kind "), 50)
	list := freeBytes(data, 1000, []Range{{1000, 100}, {1300, 200}})
	for _, want := range []uint32{0, 1, 0xdeadbeef, 0xffffffff} {
		chosen, ok := solve(list, want)
		if !ok {
			t.Fatalf("no way to %#x", want)
		}
		out := bytes.Clone(data)
		for off := range chosen {
			out[off-1000] = 0
		}
		if got := crc32.ChecksumIEEE(out) ^ crc32.ChecksumIEEE(data); got != want {
			t.Errorf("changed %#x, not %#x", got, want)
		}
	}
}

func TestWebP(t *testing.T) {
	part := func(name, data string) string {
		b := binary.LittleEndian.AppendUint32([]byte(name), uint32(len(data)))
		return string(append(append(b, data...), make([]byte, len(data)&1)...))
	}
	exif := string(exifFile(binary.LittleEndian))
	for name, body := range map[string]string{
		"EXIF":        part("VP8 ", "pixel") + part("EXIF", exif),
		"EXIF header": part("EXIF", idExif+exif),
		"XMP":         part("XMP ", xmpText),
	} {
		t.Run(name, func(t *testing.T) { checkBlanked(t, []byte("RIFF\x00\x00\x00\x00WEBP"+body)) })
	}
}

// bmff is a box.
func bmff(name string, data ...string) string {
	all := strings.Join(data, "")
	return string(binary.BigEndian.AppendUint32(nil, uint32(8+len(all)))) + name + all
}

func be16(n int) string { return string(binary.BigEndian.AppendUint16(nil, uint16(n))) }
func be32(n int) string { return string(binary.BigEndian.AppendUint32(nil, uint32(n))) }

// heif is an image with an item for Exif and one for XMP. The place of the first
// is moved by off, and its length is more.
func heif(off, more int) []byte {
	exif := be32(2) + "xx" + string(exifFile(binary.BigEndian))
	ftyp := bmff("ftyp", "heic\x00\x00\x00\x00mif1")
	build := func(at int) string {
		return bmff("meta", be32(0),
			bmff("iinf", be32(0), be16(2),
				bmff("infe", "\x02\x00\x00\x00", be16(1), be16(0), "Exif\x00"),
				bmff("infe", "\x02\x00\x00\x00", be16(2), be16(0), "mime\x00application/rdf+xml\x00")),
			bmff("iloc", "\x01\x00\x00\x00\x44\x00", be16(2),
				be16(1), be16(0), be16(0), be16(2), be32(at+off), be32(100), be32(at+100), be32(len(exif)-100+more),
				be16(2), be16(1), be16(0), be16(1), be32(1), be32(len(xmpText))),
			bmff("idat", "x", xmpText))
	}
	at := len(ftyp) + len(build(0)) + 8
	return []byte(ftyp + build(at) + bmff("mdat", exif))
}

func TestHEIF(t *testing.T) {
	checkBlanked(t, heif(0, 0), append(exifLeft, xmpLeft...)...)
}

// film is a film with places of each kind.
func film() []byte {
	place := "+48.1370+011.5750/48,8.2057N"
	return []byte(bmff("ftyp", "qt  \x00\x00\x00\x00qt  ") + bmff("moov",
		bmff("udta", bmff(boxPlace, be16(20), be16(0), place), bmff(boxPlace3GP, be32(0), place), be32(0)),
		bmff("trak", bmff("udta", bmff(boxXMP, xmpText))),
		bmff("meta", bmff("hdlr", strings.Repeat("\x00", 24)),
			bmff("keys", be32(0), be32(2), bmff("mdta", "com.apple.quicktime.title"),
				bmff("mdta", "com.apple.quicktime.location.ISO6709")),
			bmff("ilst", bmff(be32(1), bmff("data", be32(1), be32(0), "A title")),
				bmff(be32(2), bmff("data", be32(1), be32(0), place))))))
}

func TestBoxes(t *testing.T) {
	exif := string(exifFile(binary.LittleEndian))
	jxl := "\x00\x00\x00\x0cJXL \r\n\x87\n"
	gps := string(tiffFile(binary.LittleEndian, nil, gpsEntries(binary.LittleEndian)))
	for name, b := range map[string]string{
		"film":         string(film()),
		"JPEG XL":      jxl + bmff("Exif", be32(0), exif) + bmff("xml ", xmpText),
		"JPEG XL brob": jxl + bmff("brob", "Exif", "48,8.2057N"),
		"JPEG 2000":    "\x00\x00\x00\x0cjP  \r\n\x87\n" + bmff("uuid", uuidExif, exif) + bmff("uuid", uuidXMP, xmpText),
		"CR3":          bmff("ftyp", "crx \x00\x00\x00\x00") + bmff("moov", bmff("uuid", uuidCR3, bmff("CMT1", exif), bmff("CMT4", gps))),
	} {
		t.Run(name, func(t *testing.T) { checkBlanked(t, []byte(b)) })
	}
}

func TestRAF(t *testing.T) {
	inner := jpegWith(segment(0xe1, idExif, string(exifFile(binary.LittleEndian))))
	b := append([]byte("FUJIFILMCCD-RAW "), make([]byte, 84-16)...)
	b = append(b, be32(200)+be32(len(inner))...)
	b = append(b, make([]byte, 200-len(b))...)
	checkBlanked(t, append(b, inner...), exifLeft...)
}

func TestBigTIFF(t *testing.T) {
	for name, bo := range orders {
		t.Run(name, func(t *testing.T) {
			head := "II"
			if name == "MM" {
				head = "MM"
			}
			b := bo.AppendUint16(bo.AppendUint16([]byte(head), 43), 8)
			b = bo.AppendUint64(append(b, 0, 0), 16)
			b = bo.AppendUint64(b, 1)
			b = bo.AppendUint16(bo.AppendUint16(b, tagGPSIFD), 18)
			b = bo.AppendUint64(bo.AppendUint64(b, 1), 52)
			b = bo.AppendUint64(b, 0)
			b = bo.AppendUint64(b, 1)
			b = bo.AppendUint16(bo.AppendUint16(b, 2), 5)
			b = bo.AppendUint64(bo.AppendUint64(b, 3), 88)
			b = bo.AppendUint64(b, 0)
			checkBlanked(t, append(b, rationals(bo, 2, 48, 1, 8, 1, 1234, 100).value...))
		})
	}
}

// TestXMP looks at packets of several shapes.
func TestXMP(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"element", "<a><b>1</b><x:GPSLatitude>48</x:GPSLatitude></a>", "<a><b>1</b>*</a>"},
		{"attribute", "<a x='1' e:GPSLatitude = \"48\" y='2'/>", "<a x='1' * y='2'/>"},
		{"empty", "<a><b>1</b><e:GPSStatus/></a>", "<a><b>1</b>*</a>"},
		{"nested", "<a><b>1</b><e:GPSx><rdf:Seq><rdf:li>1</rdf:li></rdf:Seq></e:GPSx></a>", "<a><b>1</b>*</a>"},
		{"frame", "<a><b>1</b><s><rdf:Bag><rdf:li rdf:parseType='Resource'><e:GPSx>1</e:GPSx></rdf:li></rdf:Bag></s></a>", "<a><b>1</b>*</a>"},
		{"drone", "<a drone-dji:GpsLongtitude='1' drone-dji:FlightRollDegree='2'/>", "<a * drone-dji:FlightRollDegree='2'/>"},
		{"comment", "<a><!-- x --><b>1</b><e:GPSx>1</e:GPSx></a>", "<a><!-- x --><b>1</b>*</a>"},
		{"in a comment", "<a><!-- <e:GPSx>1</e:GPSx> --><b>1</b></a>", "*"},
		{"in CDATA", "<a><![CDATA[ <e:GPSx>1</e:GPSx> ]]></a>", "*"},
		{"a doctype", "<!DOCTYPE a><a><e:GPSx>1</e:GPSx></a>", "*"},
		{"unbalanced", "<a><b><e:GPSx>1</e:GPSx></a>", "*"},
		{"unclosed", "<a><e:GPSx>1</e:GPSx>", "*"},
		{"cut", "<a><e:GPSx", "*"},
		{"cut off end", "<a>GPS<", "*"},
		{"bad quote", "<a e:GPSx='1></a>", "*"},
		{"node", "<a><e:GPSx rdf:nodeID='n'/><rdf:Description rdf:nodeID='n'>48</rdf:Description></a>", "*"},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := strings.ReplaceAll(c.want, "*", "\x00")
			out := blanked(t, []byte(c.in), packetRanges(t, c.in))
			got := string(bytes.Join(bytes.FieldsFunc(out, func(r rune) bool { return r == 0 }), []byte{0}))
			if strings.HasPrefix(string(out), "\x00") || len(got) == 0 {
				got = "\x00" + got
			}
			if got != want {
				t.Errorf("got %q", got)
			}
		})
	}
}

// packetRanges are the ranges of a packet alone.
func packetRanges(t *testing.T, packet string) []Range {
	t.Helper()
	f := newFile(strings.NewReader(packet), int64(len(packet)), maxMeta)
	if err := xmpPacket(f.whole()); err != nil {
		t.Fatal(err)
	}
	ranges, err := f.found()
	if err != nil {
		t.Fatal(err)
	}
	return ranges
}
