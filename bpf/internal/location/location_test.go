// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image"
	"strings"
	"testing"
)

var orders = map[string]byteOrder{"II": binary.LittleEndian, "MM": binary.BigEndian}

// secrets are what no image may hold when blanked: the places of gpsEntries and
// of xmpText.
func secrets() []string {
	var all []string
	for _, bo := range orders {
		for _, n := range []uint32{1234, 5678} {
			all = append(all, string(bo.AppendUint32(bo.AppendUint32(nil, n), 100)))
		}
	}
	return append(all, "2021:02:03\x00", "PLACEPLACE", "48,8.2057N", "11,34.946E")
}

// xmpText is an XMP packet with location as an element, and as an attribute.
const xmpText = `<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
 <rdf:Description rdf:about="" xmlns:e="http://ns.adobe.com/exif/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
  e:GPSLongitude="11,34.946E" dc:format="image/a > b">
  <e:GPSLatitude>48,8.2057N</e:GPSLatitude>
  <dc:source>My GPS, gone</dc:source>
 </rdf:Description>
</rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>`

// xmpLeft is what must stay of xmpText.
var xmpLeft = []string{`dc:format="image/a > b"`, "<dc:source>My GPS, gone</dc:source>", "</rdf:RDF></x:xmpmeta>"}

// checkBlanked blanks what Find finds in b, and checks that no secret is left,
// that what should be left is, and that nothing more is found.
func checkBlanked(t *testing.T, b []byte, left ...string) []byte {
	t.Helper()
	ranges := find(t, b)
	if ranges == nil {
		t.Fatal("no location found")
	}
	out := blanked(t, b, ranges)
	for _, s := range secrets() {
		if bytes.Contains(out, []byte(s)) {
			t.Errorf("%q is left", s)
		}
	}
	for _, s := range left {
		if !bytes.Contains(out, []byte(s)) {
			t.Errorf("%q is gone", s)
		}
	}
	again := blanked(t, out, find(t, out))
	if !bytes.Equal(again, out) {
		t.Error("there is more in what is left")
	}
	return out
}

// samePixels checks that two images decode to the same.
func samePixels(t *testing.T, a, b []byte) {
	t.Helper()
	x, _, err := image.Decode(bytes.NewReader(a))
	if err != nil {
		t.Fatal(err)
	}
	y, _, err := image.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for i := range x.Bounds().Dy() {
		for j := range x.Bounds().Dx() {
			if x.At(j, i) != y.At(j, i) {
				t.Fatalf("pixel %d,%d differs", j, i)
			}
		}
	}
}

var exifLeft = []string{"Maker of things", "2021:02:03 04:05:06"}

func TestTIFF(t *testing.T) {
	for name, bo := range orders {
		t.Run(name, func(t *testing.T) {
			b := exifFile(bo)
			// The date of the pictures begins as that of the place does.
			out := checkBlanked(t, b, exifLeft...)
			if len(out) != len(b) {
				t.Fatal("the length changed")
			}
		})
	}
}

func TestJPEG(t *testing.T) {
	for name, bo := range orders {
		t.Run(name, func(t *testing.T) {
			b := jpegWith(segment(0xe0, "JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"),
				segment(0xe1, idExif, string(exifFile(bo))), segment(0xe1, idXMP, xmpText))
			out := checkBlanked(t, b, append(exifLeft, xmpLeft...)...)
			samePixels(t, b, out)
		})
	}
}

// TestNone looks at files without location.
func TestNone(t *testing.T) {
	bo := binary.LittleEndian
	for name, b := range map[string][]byte{
		"empty":   nil,
		"tiny":    []byte("II*\x00"),
		"text":    []byte(strings.Repeat("GPSLatitude ", 100)),
		"jpeg":    jpegBase(),
		"png":     pngBase(),
		"exif":    jpegWith(segment(0xe1, idExif, string(tiffFile(bo, nil, []ifdEntry{ascii(0x10f, "Maker")})))),
		"xmp":     jpegWith(segment(0xe1, idXMP, strings.ReplaceAll(xmpText, "GPSL", "SomeL")[:60])),
		"wiped":   jpegWith(segment(0xe1, idExif, strings.Repeat("\x00", 500))),
		"zero":    make([]byte, 4096),
		"speed":   jpegWith(segment(0xe1, idXMP, `<a><exifEX:ISOSpeedLatitudeyyy>3</exifEX:ISOSpeedLatitudeyyy></a>`)),
		"cut off": jpegBase()[:len(jpegBase())/2],
	} {
		t.Run(name, func(t *testing.T) {
			if ranges := find(t, b); ranges != nil {
				t.Errorf("found %v", ranges)
			}
		})
	}
}

// elsewhere are JPEG images with location in less usual places.
func elsewhere() map[string][]byte {
	bo := binary.BigEndian
	exif := string(exifFile(bo))
	inner := jpegWith(segment(0xe1, idExif, exif))
	base := jpegBase()
	half := len(exif) / 2
	return map[string][]byte{
		"two segments":  jpegWith(segment(0xe1, idExif, exif[:half]), segment(0xe1, idExif, exif[half:])),
		"second Exif":   jpegWith(segment(0xe1, idExif, string(tiffFile(bo, nil, []ifdEntry{ascii(0x10f, "x")}))), segment(0xe1, idExif, exif)),
		"odd header":    jpegWith(segment(0xe1, "\x00\x00EXIF\x00\x00", exif)),
		"after scan":    append(bytes.Clone(base[:len(base)-2]), append(segment(0xe1, idExif, exif), base[len(base)-2:]...)...),
		"behind":        append(bytes.Clone(base), inner...),
		"behind, apart": append(append(bytes.Clone(base), "some other data"...), inner...),
		"thumbnail": jpegWith(segment(0xe1, idExif, string(tiffFile(bo, map[int]int{0: 1}, []ifdEntry{ascii(0x10f, "x")},
			[]ifdEntry{short(tagCompression, 6), {tag: tagJPEGOffset, typ: 4, count: 1, value: bo.AppendUint32(nil, 1000)},
				{tag: tagJPEGLength, typ: 4, count: 1, value: bo.AppendUint32(nil, uint32(len(inner)))}}))+strings.Repeat("\x00", 1000-tiffLen())+string(inner))),
		"second directory": jpegWith(segment(0xe1, idExif, string(tiffFile(bo, map[int]int{0: 1}, []ifdEntry{ascii(0x10f, "x")},
			[]ifdEntry{pointer(tagGPSIFD, 2)}, gpsEntries(bo))))),
		"in Exif": jpegWith(segment(0xe1, idExif, string(tiffFile(bo, nil, []ifdEntry{pointer(tagExifIFD, 1)},
			[]ifdEntry{pointer(tagGPSIFD, 2)}, gpsEntries(bo))))),
		"sub directory": jpegWith(segment(0xe1, idExif, string(tiffFile(bo, map[int]int{1: 2}, []ifdEntry{pointer(tagSubIFDs, 1)},
			[]ifdEntry{ascii(0x10f, "x")}, []ifdEntry{pointer(tagGPSIFD, 3)}, gpsEntries(bo))))),
		"photoshop Exif":    jpegWith(segment(0xed, idPhotoshop, irb(resExif1, exif))),
		"photoshop XMP":     jpegWith(segment(0xed, idPhotoshop, irb(0x0404, "odd"), irb(resXMP, xmpText))),
		"XMP in TIFF":       jpegWith(segment(0xe1, idExif, string(tiffFile(bo, nil, []ifdEntry{blob(tagXMP, xmpText)})))),
		"XMP without id":    jpegWith(segment(0xe1, xmpText)),
		"extended XMP":      jpegWith(append(extended(xmpText, 300), segment(0xe1, idXMP, notePacket))...),
		"XMP in UTF-16":     jpegWith(segment(0xe1, idXMP, utf16(xmpText))),
		"film behind":       append(bytes.Clone(base), film()...),
		"multi-picture":     mpf(inner, 0),
		"multi-picture cut": mpf(inner, 1<<20),
		"drone":             jpegWith(segment(0xe1, idXMP, dronePacket)),
	}
}

func TestWhere(t *testing.T) {
	for name, b := range elsewhere() {
		t.Run(name, func(t *testing.T) { samePixels(t, b, checkBlanked(t, b)) })
	}
}

// dronePacket is XMP as drones write it.
const dronePacket = `<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
 <rdf:Description rdf:about="DJI Meta Data" xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/"
  drone-dji:GpsLatitude="48,8.2057N" drone-dji:GpsLongtitude="11,34.946E" drone-dji:GpsStatus="RTK"
  drone-dji:FlightRollDegree="+1.5" drone-dji:FlightYawDegree="+2.5"/>
</rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>`

// notePacket is XMP that says that there is more.
var notePacket = strings.NewReplacer("GpsLatitude", "One", "GpsLongtitude", "Two", "GpsStatus", "Three",
	"48,8.2057N", "1", "11,34.946E", "2",
	`"DJI Meta Data"`, `"" xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="`+
		strings.Repeat("A", 32)+`"`).Replace(dronePacket)

// tiffLen is the length of the TIFF that the thumbnail's test makes.
func tiffLen() int {
	return 8 + 2 + 12 + 4 + 2 + 3*12 + 4
}

// irb is a Photoshop resource.
func irb(id uint16, data string) string {
	b := binary.BigEndian.AppendUint16([]byte("8BIM"), id)
	b = binary.BigEndian.AppendUint32(append(b, 0, 0), uint32(len(data)))
	b = append(b, data...)
	return string(append(b, make([]byte, len(data)&1)...))
}

// extended is a packet as segments of n bytes each, in the wrong order.
func extended(packet string, n int) [][]byte {
	var all [][]byte
	for at := 0; at < len(packet); at += n {
		b := append([]byte(idExtended), bytes.Repeat([]byte("A"), 32)...)
		b = binary.BigEndian.AppendUint32(b, uint32(len(packet)))
		b = binary.BigEndian.AppendUint32(b, uint32(at))
		all = append([][]byte{segment(0xe1, string(b), packet[at:min(at+n, len(packet))])}, all...)
	}
	return all
}

// utf16 is a text with a zero before each byte.
func utf16(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteByte(0)
		b.WriteByte(s[i])
	}
	return b.String()
}

// mpf is a JPEG with a multi-picture directory and an image behind other data,
// more bytes of which than there are may be claimed.
func mpf(second []byte, more uint32) []byte {
	bo := binary.BigEndian
	const gap = 10
	list := make([]byte, 16)
	list = append(list, 0, 0, 0, 0)
	list = bo.AppendUint32(list, uint32(len(second))+more)
	list = append(bo.AppendUint32(list, 0), 0, 0, 0, 0)
	first := tiffFile(bo, nil, []ifdEntry{blob(tagMPEntries, string(list))})
	image := jpegWith(segment(0xe2, idMPF, string(first)))
	base := bytes.Index(image, []byte(idMPF)) + len(idMPF)
	bo.PutUint32(image[base+len(first)-8:], uint32(len(image)+gap-base))
	image = append(image, make([]byte, gap)...)
	return append(image, second...)
}

// TestDamaged makes images in which location may go unseen.
func TestDamaged(t *testing.T) {
	bo := binary.LittleEndian
	at := func(tag uint16, off uint32) ifdEntry {
		return ifdEntry{tag: tag, typ: 4, count: 1, value: bo.AppendUint32(nil, off)}
	}
	deep := [][]ifdEntry{}
	for i := range 20 {
		deep = append(deep, []ifdEntry{pointer(tagExifIFD, i+1)})
	}
	deep = append(deep, gpsEntries(bo))
	for name, b := range map[string][]byte{
		"GPS beyond the end":      tiffFile(bo, nil, []ifdEntry{at(tagGPSIFD, 1<<20)}),
		"GPS is the header":       tiffFile(bo, nil, []ifdEntry{at(tagGPSIFD, 2)}),
		"GPS is the first":        tiffFile(bo, nil, []ifdEntry{at(tagGPSIFD, 8)}),
		"GPS is Exif":             tiffFile(bo, nil, []ifdEntry{pointer(tagGPSIFD, 1), pointer(tagExifIFD, 1)}, gpsEntries(bo)),
		"value in a directory":    tiffFile(bo, nil, []ifdEntry{pointer(tagGPSIFD, 1)}, []ifdEntry{{tag: 2, typ: 5, count: 1 << 20}}),
		"value over the first":    overlap(bo),
		"value of a strange type": tiffFile(bo, nil, []ifdEntry{pointer(tagGPSIFD, 1)}, []ifdEntry{{tag: 2, typ: 77, count: 9}}),
		"Exif beyond the end":     tiffFile(bo, nil, []ifdEntry{at(tagExifIFD, 0xfffffff0)}),
		"too many pointers":       tiffFile(bo, nil, []ifdEntry{{tag: tagGPSIFD, typ: 4, count: 1 << 30}}),
		"too deep":                tiffFile(bo, nil, deep...),
		"cut segment":             jpegWith(segment(0xe1, idExif, string(exifFile(bo))))[:2+4+6+len(exifFile(bo))-9],
		"segment without length":  append([]byte(soi), "\xe1\x00\x01Exif\x00\x00II*\x00"...),
		"cut chunk":               append([]byte(pngSignature), "\x00\x00\xff\xffeXIf12345678"...),
		"no TIFF in Exif":         jpegWith(segment(0xe1, idExif, "0123456789abcdef")),
		"item beyond the end":     heif(1<<30, 100),
		"cut box":                 append(heif(0, 0), "\x00\x01\x00\x00meta"...),
	} {
		t.Run(name, func(t *testing.T) {
			ranges, err := Find(bytes.NewReader(b), int64(len(b)))
			if !errors.Is(err, ErrDamaged) || ranges != nil {
				t.Errorf("got %v, %v", ranges, err)
			}
			if err != nil && len(err.Error()) < len(ErrDamaged.Error())+5 {
				t.Errorf("no words: %v", err)
			}
		})
	}
}

// overlap is a TIFF whose GPS value is the first directory.
func overlap(bo byteOrder) []byte {
	b := tiffFile(bo, nil, []ifdEntry{pointer(tagGPSIFD, 1)}, []ifdEntry{ascii(2, "0123456789")})
	i := bytes.LastIndex(b, bo.AppendUint32(nil, uint32(len(b)-11)))
	bo.PutUint32(b[i:], 12)
	return b
}

// TestCycle walks directories that lead back to themselves.
func TestCycle(t *testing.T) {
	bo := binary.BigEndian
	b := tiffFile(bo, map[int]int{1: 1, 0: 1}, []ifdEntry{pointer(tagExifIFD, 1), pointer(tagGPSIFD, 2)},
		[]ifdEntry{pointer(tagSubIFDs, 1), pointer(tagInteropIFD, 1), pointer(tagGPSIFD, 2)}, gpsEntries(bo))
	checkBlanked(t, b)
}

// failing is a reader that fails.
type failing struct{}

var errRead = errors.New("cannot read")

func (failing) ReadAt([]byte, int64) (int, error) { return 0, errRead }

func TestReadError(t *testing.T) {
	if _, err := Find(failing{}, 100); !errors.Is(err, errRead) || errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
	b := exifFile(binary.LittleEndian)
	if _, err := Find(bytes.NewReader(b[:20]), int64(len(b))); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

// TestLimits makes images that would take for ever.
func TestLimits(t *testing.T) {
	bo := binary.BigEndian
	var list []byte
	for range 3000 { // 100 such lists, of one image behind them that has no end
		list = append(bo.AppendUint32(append(list, make([]byte, 4)...), 10000), 0x00, 0x60, 0, 1, 0, 0, 0, 0)
	}
	many := segment(0xe2, idMPF, string(tiffFile(bo, nil, []ifdEntry{blob(tagMPEntries, string(list))})))
	images := jpegWith(bytes.Repeat(many, 100))
	for name, b := range map[string][]byte{
		"many images": append(images, bytes.Repeat([]byte("\xff\xd8"), 4<<20)...),
		"many starts": append(jpegBase(), bytes.Repeat([]byte("\xff\xd8\xff\xe1\x00\x02"), 100000)...),
	} {
		t.Run(name, func(t *testing.T) {
			ranges, err := Find(bytes.NewReader(b), int64(len(b)))
			if !errors.Is(err, ErrDamaged) || ranges != nil {
				t.Errorf("got %v, %v", ranges, err)
			}
		})
	}
}
