// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import (
	"bytes"
	"fmt"
	"image"
	_ "image/jpeg"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// specimen is an image that exiftool adds tags to, with args.
type specimen struct {
	name, base string
	args       []string
	tags       int // how many tags of location it has at least
}

var (
	commonTags = []string{
		"-EXIF:Make=Acme", "-EXIF:Model=A model", "-EXIF:Artist=Someone", "-EXIF:ImageDescription=A place",
		"-EXIF:DateTimeOriginal=2020:01:01 10:00:00", "-EXIF:ExposureTime=1/100", "-EXIF:UserComment=hello",
		"-XMP-dc:Title=huhu GPS", "-XMP-dc:Creator=bob", "-XMP-xmp:Rating=3", "-XMP-xmp:CreatorTool=tool",
		"-XMP-photoshop:City=Muc", "-XMP-exif:ExposureTime=1/50",
	}
	gpsTags = []string{
		"-EXIF:GPSLatitude=48.123", "-EXIF:GPSLatitudeRef=N", "-EXIF:GPSLongitude=11.456",
		"-EXIF:GPSLongitudeRef=E", "-EXIF:GPSAltitude=519.5", "-EXIF:GPSAltitudeRef=0",
		"-EXIF:GPSMapDatum=WGS-84", "-EXIF:GPSDateStamp=2020:01:01", "-EXIF:GPSTimeStamp=10:00:00",
		"-EXIF:GPSProcessingMethod=GPS", "-EXIF:GPSImgDirection=12.5", "-EXIF:GPSHPositioningError=5",
	}
	fewGPSTags = gpsTags[:4]
	xmpGPSTags = []string{
		"-XMP-exif:GPSLatitude=48.123", "-XMP-exif:GPSLongitude=11.456", "-XMP-exif:GPSAltitude=519",
		"-XMP-exif:GPSDateTime=2020:01:01 10:00:00Z",
	}
	structTags = []string{
		"-XMP-iptcExt:LocationShown=[{City=Muc,GPSLatitude=48.1,GPSLongitude=11.5},{GPSLatitude=48.1,GPSLongitude=11.5}]",
		"-XMP-iptcExt:LocationCreated={GPSLatitude=48.1,GPSLongitude=11.5}",
	}
	little  = []string{"-ExifByteOrder=II"}
	big     = []string{"-ExifByteOrder=MM"}
	compact = []string{"-api", "Compact=Shorthand"}
	dense   = []string{"-api", "Compact=NoIndent,NoNewline,NoPadding"}
	iptc    = []string{"-IPTC:Keywords=word", "-IPTC:City=Muc"}
)

// specimens are the images to test with a base of each format there is.
func specimens(bases []string) []specimen {
	var all []specimen
	for _, base := range bases {
		add := func(name string, tags int, args ...[]string) {
			list := slicesConcat(args)
			all = append(all, specimen{name + "." + base, base, list, tags})
		}
		add("plain", 0, commonTags)
		add("gpsII", 12, little, commonTags, gpsTags)
		add("gpsMM", 12, big, commonTags, gpsTags)
		add("few", 4, big, commonTags, fewGPSTags)
		add("bare", 4, fewGPSTags)
		add("xmp", 4, commonTags, xmpGPSTags)
		add("xmpshort", 4, compact, commonTags, xmpGPSTags)
		add("xmpdense", 4, dense, commonTags, xmpGPSTags)
		add("xmponly", 4, xmpGPSTags)
		add("struct", 4, commonTags, structTags)
		add("structshort", 4, compact, commonTags, structTags)
		add("all", 20, little, iptcFor(base), commonTags, gpsTags, xmpGPSTags, structTags)
	}
	return all
}

func slicesConcat(args [][]string) (list []string) {
	for _, a := range args {
		list = append(list, a...)
	}
	return list
}

// iptcFor is IPTC tags for a format that can hold them.
func iptcFor(base string) []string {
	if base == "jpg" || base == "tif" {
		return iptc
	}
	return nil
}

// exiftool runs exiftool with args from a file, in dir.
func exiftool(t *testing.T, dir string, args []string) string {
	t.Helper()
	list := filepath.Join(dir, "args")
	if err := os.WriteFile(list, []byte(strings.Join(args, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("exiftool", "-@", list)
	cmd.Dir = dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Logf("exiftool: %v: %s", err, errs.Bytes())
	}
	return string(out)
}

// bases makes a base of each format in dir for which there is a tool, and
// returns their names.
func bases(t *testing.T, dir string) []string {
	write(t, dir, "base.jpg", jpegBase())
	write(t, dir, "base.png", pngBase())
	have := []string{"jpg", "png"}
	for _, c := range [][]string{
		{"tif", "convert", "base.png", "base.tif"},
		{"webp", "convert", "base.png", "base.webp"},
		{"jp2", "convert", "base.png", "base.jp2"},
		{"heic", "heif-enc", "base.png", "-o", "base.heic"},
		{"avif", "heif-enc", "-A", "base.png", "-o", "base.avif"},
	} {
		cmd := exec.Command(c[1], c[2:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Logf("no %s, as %s cannot make one: %v %s", c[0], c[1], err, out)
			continue
		}
		have = append(have, c[0])
	}
	return have
}

func write(t *testing.T, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var (
	fileHead  = regexp.MustCompile(`(?m)^======== (.*)$`)
	placeLine = regexp.MustCompile(`(?i)^\[[^]]*\]\s+\S*(gps|latitude|longitude|locationinformation)`)
)

// listings are the tags that exiftool shows for files, by name.
func listings(t *testing.T, dir string, names []string) map[string][]string {
	out := exiftool(t, dir, append([]string{"-a", "-G1", "-s", "--System:all", "--ExifToolVersion"}, names...))
	all := map[string][]string{}
	heads := fileHead.FindAllStringSubmatchIndex(out, -1)
	for i, h := range heads {
		end := len(out)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		all[out[h[2]:h[3]]] = lines(out[h[1]:end])
	}
	return all
}

// lines are the lines of a listing, without the count at its end.
func lines(out string) []string {
	var all []string
	for _, l := range strings.Split(strings.TrimSpace(out), "\n") {
		if strings.HasPrefix(l, "[") {
			all = append(all, l)
		}
	}
	return all
}

// needExiftool skips a test if there is no exiftool.
func needExiftool(t *testing.T) {
	if _, err := exec.LookPath("exiftool"); err != nil {
		t.Skip("needs exiftool, which is not installed: ", err)
	}
}

// TestExiftool blanks what Find finds in images that exiftool made, and looks at
// them with it.
func TestExiftool(t *testing.T) {
	needExiftool(t)
	dir := t.TempDir()
	all := specimens(bases(t, dir))
	var args, names []string
	for _, s := range all {
		write(t, dir, s.name, read(t, dir, "base."+s.base))
		args = append(append(args, s.args...), "-q", "-q", "-m", "-overwrite_original", s.name, "-execute")
	}
	exiftool(t, dir, args)
	for _, s := range all {
		b := read(t, dir, s.name)
		ranges, err := Find(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		write(t, dir, "out-"+s.name, blanked(t, b, ranges))
		names = append(names, s.name, "out-"+s.name)
	}
	lists := listings(t, dir, names)
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			compare(t, s, lists[s.name], lists["out-"+s.name])
			comparePixels(t, dir, s)
		})
	}
}

// madeHere are images that no tool makes, by file name.
func madeHere() map[string][]byte {
	all := map[string][]byte{"film.mov": film()}
	for name, b := range elsewhere() {
		if name != "XMP in UTF-16" { // goes as a whole
			all[strings.ReplaceAll(name, " ", "_")+".jpg"] = b
		}
	}
	for name, bo := range orders {
		all[name+".tif"] = exifFile(bo)
	}
	return all
}

// TestExiftoolMade is TestExiftool for the images that other tests make.
func TestExiftoolMade(t *testing.T) {
	needExiftool(t)
	dir := t.TempDir()
	var names []string
	for name, b := range madeHere() {
		write(t, dir, name, b)
		write(t, dir, "out-"+name, blanked(t, b, find(t, b)))
		names = append(names, name, "out-"+name)
	}
	lists := listings(t, dir, names)
	for name := range madeHere() {
		t.Run(name, func(t *testing.T) {
			compare(t, specimen{name: name}, lists[name], lists["out-"+name])
		})
	}
}

// compare checks the tags of a specimen before and after.
func compare(t *testing.T, s specimen, before, after []string) {
	t.Helper()
	var want []string
	for _, line := range before {
		if !placeLine.MatchString(line) {
			want = append(want, line)
		}
	}
	if n := len(before) - len(want); n < s.tags {
		t.Errorf("only %d tags of location before", n)
	}
	if len(want) < 3 {
		t.Errorf("hardly any tags: %q", before)
	}
	if d := difference(want, after); d != "" {
		t.Errorf("the tags differ:\n%s", d)
	}
}

// difference lists the lines that only one of two has.
func difference(a, b []string) string {
	count := map[string]int{}
	for _, l := range a {
		count[l]++
	}
	var d strings.Builder
	for _, l := range b {
		if count[l]--; count[l] < 0 {
			fmt.Fprintf(&d, "+ %s\n", l)
		}
	}
	for _, l := range a {
		if count[l] > 0 {
			fmt.Fprintf(&d, "- %s\n", l)
			count[l]--
		}
	}
	return d.String()
}

// comparePixels checks that a specimen's pixels are as before.
func comparePixels(t *testing.T, dir string, s specimen) {
	t.Helper()
	var pixels [2][]byte
	for i, name := range []string{s.name, "out-" + s.name} {
		p, err := decode(dir, name, s.base)
		if err != nil && s.base == "png" && i == 1 && mayBreakCRC(s.name) {
			t.Skip("the checksum could not be kept: ", err)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		pixels[i] = p
	}
	if !bytes.Equal(pixels[0], pixels[1]) {
		t.Errorf("the pixels differ")
	}
}

// mayBreakCRC reports whether a PNG has too few bytes to keep its checksum.
func mayBreakCRC(name string) bool {
	return strings.HasPrefix(name, "few") || strings.HasPrefix(name, "bare") || strings.HasPrefix(name, "xmpdense") || strings.HasPrefix(name, "xmponly")
}

// decode returns the pixels of an image.
func decode(dir, name, base string) ([]byte, error) {
	path := filepath.Join(dir, name)
	if base != "jpg" && base != "png" {
		tool := "convert"
		if base == "heic" || base == "avif" {
			tool = "heif-convert"
		}
		if out, err := exec.Command(tool, path, path+".png").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %v: %s", tool, err, out)
		}
		path += ".png"
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, _, err := image.Decode(f)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for y := m.Bounds().Min.Y; y < m.Bounds().Max.Y; y++ {
		for x := m.Bounds().Min.X; x < m.Bounds().Max.X; x++ {
			fmt.Fprint(&b, m.At(x, y))
		}
	}
	return b.Bytes(), nil
}
