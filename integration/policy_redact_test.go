// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package integration

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// photoTags are given to each image that the tests make: where it was taken,
// in Exif and in XMP, and much besides.
var photoTags = []string{
	"-EXIF:GPSLatitude=48.137154", "-EXIF:GPSLatitudeRef=N", "-EXIF:GPSLongitude=11.576124", "-EXIF:GPSLongitudeRef=E",
	"-EXIF:GPSAltitude=519.5", "-EXIF:GPSAltitudeRef=0", "-EXIF:GPSDateStamp=2020:02:03", "-EXIF:GPSTimeStamp=04:05:06",
	"-EXIF:GPSImgDirection=12.5", "-EXIF:GPSMapDatum=WGS-84", "-EXIF:GPSProcessingMethod=GPS", "-EXIF:GPSHPositioningError=5",
	"-XMP-exif:GPSLatitude=48.137154", "-XMP-exif:GPSLongitude=11.576124", "-XMP-exif:GPSAltitude=519",
	"-EXIF:Make=Acme", "-EXIF:Model=Camera of the tests", "-EXIF:Artist=A. N. Other", "-EXIF:Copyright=nobody",
	"-EXIF:ImageDescription=A square", "-EXIF:UserComment=a comment", "-EXIF:DateTimeOriginal=2020:02:03 04:05:06",
	"-EXIF:OffsetTimeOriginal=+01:00", "-EXIF:ISO=200", "-EXIF:FNumber=2.8", "-EXIF:ExposureTime=1/250", "-EXIF:FocalLength=35",
	"-EXIF:LensModel=A lens", "-EXIF:SerialNumber=12345", "-EXIF:Orientation#=1", "-EXIF:XResolution=72",
	"-XMP-dc:Title=A title", "-XMP-dc:Creator=A. N. Other", "-XMP-dc:Subject=one", "-XMP-dc:Subject=two", "-XMP-dc:Rights=none",
	"-XMP-xmp:Rating=3", "-XMP-xmp:CreatorTool=tests", "-XMP-photoshop:City=Munich", "-XMP-photoshop:Credit=nobody",
	"-XMP-xmpRights:Marked=true", "-XMP-aux:Lens=A lens",
}

// photos are the images, by how each is made from base.png.
var photos = []struct{ name, tool string }{
	{"a.jpg", ""},
	{"a.png", ""},
	{"a.tif", "convert"},
	{"a.webp", "convert"},
	{"a.heic", "heif-enc"},
}

// makePhotos makes images with tags in dir, and returns the names of those for
// which there are tools.
func makePhotos(t *testing.T, dir string) (made []string) {
	t.Helper()
	requireTool(t, "exiftool")
	base := filepath.Join(tempDir(t), "base.png")
	makeBase(t, base, filepath.Join(dir, "a.jpg"))
	for _, p := range photos {
		file := filepath.Join(dir, p.name)
		var cmd *exec.Cmd
		switch p.tool {
		case "convert":
			cmd = exec.Command(p.tool, base, file)
		case "heif-enc":
			cmd = exec.Command(p.tool, base, "-o", file)
		default:
			made = append(made, p.name)
			continue
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Logf("NOT TESTED: %s, for %s cannot make one: %v %s", p.name, p.tool, err, out)
			continue
		}
		made = append(made, p.name)
	}
	args := slices.Concat([]string{"-q", "-q", "-m", "-overwrite_original"}, photoTags)
	for _, name := range made {
		run(t, dir, "exiftool", append(slices.Clone(args), name)...)
	}
	return made
}

// makeBase writes an image as PNG (also as a.png beside the JPEG) and JPEG.
func makeBase(t *testing.T, asPNG, asJPEG string) {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 160, 120))
	for y := range 120 {
		for x := range 160 {
			img.SetRGBA(x, y, color.RGBA{uint8(x * 3), uint8(y * 2), uint8(x ^ y), 255})
		}
	}
	var p, j bytes.Buffer
	must(t, png.Encode(&p, img))
	must(t, jpeg.Encode(&j, img, nil))
	must(t, os.WriteFile(asPNG, p.Bytes(), 0o644))
	must(t, os.WriteFile(filepath.Join(filepath.Dir(asJPEG), "a.png"), p.Bytes(), 0o644))
	must(t, os.WriteFile(asJPEG, j.Bytes(), 0o644))
}

// isLocation finds tags of a place. A GPS version is one, too.
var isLocation = regexp.MustCompile(`(?i)^\[[^\]]*\]\s+(gps|geo)`)

// ofFile are tags of the file system, not of the image.
var ofFile = regexp.MustCompile(`^\[(System|ExifTool)\]`)

// tagsOf are the tags that exiftool finds, sorted, those of the place apart;
// and its warnings.
func tagsOf(t *testing.T, file string) (others, places, warnings []string) {
	t.Helper()
	for line := range strings.Lines(run(t, "", "exiftool", "-a", "-G1", "-s", file)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "[ExifTool]") && (strings.Contains(line, "Warning") || strings.Contains(line, "Error")):
			warnings = append(warnings, line)
		case ofFile.MatchString(line):
		case isLocation.MatchString(line):
			places = append(places, line)
		case strings.HasPrefix(line, "[Composite]") && strings.Contains(line, "GPS"):
			places = append(places, line)
		default:
			others = append(others, line)
		}
	}
	slices.Sort(others)
	return others, places, warnings
}

// pixelsOf is a sum of the decoded pixels; "" if there is no decoder.
func pixelsOf(t *testing.T, file string) string {
	t.Helper()
	if f := filepath.Ext(file); f == ".jpg" || f == ".png" {
		b, err := os.ReadFile(file)
		must(t, err)
		img, _, err := image.Decode(bytes.NewReader(b))
		if err != nil {
			t.Errorf("%s: decoding: %v", file, err)
			return "broken"
		}
		var out bytes.Buffer
		must(t, png.Encode(&out, img))
		return hexSum(out.Bytes())
	}
	if strings.HasSuffix(file, ".heic") {
		if _, err := exec.LookPath("heif-convert"); err != nil {
			return ""
		}
		out := filepath.Join(tempDir(t), "out.png")
		run(t, "", "heif-convert", file, out)
		b, err := exec.Command("convert", out, "-strip", "rgba:-").Output()
		must(t, err)
		return hexSum(b)
	}
	b, err := exec.Command("convert", file, "rgba:-").Output()
	must(t, err)
	return hexSum(b)
}

// TestPolicyRedactPhotos: images lose where they were taken, and nothing else.
func TestPolicyRedactPhotos(t *testing.T) {
	requirePlyfs(t, "policies")
	requireRoot(t)
	dir := tempDir(t)
	lower := makeTree(t, filepath.Join(dir, "lower"), []string{"photos/", "photos/notes.txt=GPSLatitude 48.137154"})
	made := makePhotos(t, filepath.Join(lower, "photos"))
	policy := writePolicy(t, dir, "policy.yaml",
		`- {path: /photos, name: gps, program: redact, match: ["*.jpg", "*.png", "*.tif", "*.webp", "*.heic"], handler: image-location}`+"\n")
	u := newMount(t, mountOpts{dir: dir, lowerDirs: []string{lower}, options: []string{"policy=" + policy}})
	for _, name := range made {
		t.Run(name, func(t *testing.T) {
			checkPhoto(t, filepath.Join(lower, "photos", name), u.path("photos", name))
			u.wantServed("photos/"+name, "server", "gps")
		})
	}
	u.wantUntouched(policyModes[0].option, "photos/notes.txt")
	wantFile(t, u.path("photos/notes.txt"), "GPSLatitude 48.137154")
	// A copy-up is of what is shown, and what is written anew is governed, too.
	for _, name := range made {
		must(t, os.Chmod(u.path("photos", name), 0o600))
		checkPhoto(t, filepath.Join(lower, "photos", name), filepath.Join(u.upper, "photos", name))
		raw, err := os.ReadFile(filepath.Join(lower, "photos", name))
		must(t, err)
		anew := "new" + filepath.Ext(name)
		must(t, os.WriteFile(u.path("photos", anew), raw, 0o644))
		checkPhoto(t, filepath.Join(lower, "photos", name), u.path("photos", anew))
	}
}

// checkPhoto compares an image with the one it is of.
func checkPhoto(t *testing.T, original, shown string) {
	t.Helper()
	wantOthers, places, wantWarnings := tagsOf(t, original)
	if len(places) < 10 || len(wantOthers) < 30 {
		t.Errorf("%s: has %d tags of a place and %d others: the test tests nothing", original, len(places), len(wantOthers))
	}
	others, left, warnings := tagsOf(t, shown)
	if len(left) > 0 {
		t.Errorf("%s: SHOWS WHERE IT WAS TAKEN: %q", shown, left)
	}
	if !slices.Equal(warnings, wantWarnings) {
		t.Errorf("%s: warnings %q, want %q", shown, warnings, wantWarnings)
	}
	for _, d := range lineDifferences(wantOthers, others) {
		t.Errorf("%s: %s", shown, d)
	}
	if want, got := pixelsOf(t, original), pixelsOf(t, shown); got != want {
		t.Errorf("%s: the pixels differ", shown)
	}
	a, b := lstat(t, original), lstat(t, shown)
	if a.Size != b.Size {
		t.Errorf("%s: %d bytes, want %d", shown, b.Size, a.Size)
	}
}

// lineDifferences are the lines that only one of two lists has.
func lineDifferences(want, got []string) (diff []string) {
	count := map[string]int{}
	for _, l := range got {
		count[l]++
	}
	for _, l := range want {
		if count[l]--; count[l] < 0 {
			diff = append(diff, "lacks "+l)
		}
	}
	for _, l := range got {
		if count[l] > 0 {
			count[l]--
			diff = append(diff, "has besides "+l)
		}
	}
	return diff
}

// TestPolicyRedactRanges: what each form of a range hides, to the byte.
func TestPolicyRedactRanges(t *testing.T) {
	eachPolicyMode(t, func(t *testing.T, option string) {
		const size = 1<<20 + 5000
		dir := tempDir(t)
		policy := writePolicy(t, dir, "policy.yaml", strings.Join([]string{
			`- path: /r`, `  name: forms`, `  program: redact`, `  match: "*.raw"`, `  ranges:`,
			`  - {offset: 0, length: 10}`, `  - 4096-8191`, `  - 8192+1`, `  - 9999-9999`, `  - 1M+100`, `  - 100M+1K`,
			`- {path: /r/whole, name: all, program: redact, whole: true}`,
			`- {path: /r/many, name: many, program: redact, ranges: [` + manyRanges() + `]}`, ""}, "\n"))
		u := newMount(t, mountOpts{dir: dir, options: []string{option, "policy=" + policy}, lowers: [][]string{{
			fmt.Sprintf("r/a.raw=#%d", size), "r/short.raw=#5000", "r/tiny.raw=#3", "r/empty.raw=", "r/a.jpg=#20000",
			"r/whole/a.raw=#20000", "r/whole/empty=", "r/many/a=#100000", "a.raw=#20000",
		}}})
		want := pattern(size, size)
		for _, r := range [][2]int{{0, 10}, {4096, 8193}, {9999, 10000}, {1 << 20, 1<<20 + 100}} {
			clear(want[r[0]:r[1]])
		}
		short := pattern(5000, 5000)
		clear(short[:10])
		clear(short[4096:])
		many := pattern(100_000, 100_000)
		for i := range 90 {
			clear(many[1000*i+17 : 1000*i+20])
		}
		for _, c := range []struct {
			name, mode, rule string
			want             []byte
		}{
			{"r/a.raw", "server", "forms", want},
			{"r/short.raw", "server", "forms", short},
			{"r/tiny.raw", "server", "forms", make([]byte, 3)},
			{"r/empty.raw", "", "", nil},
			{"r/a.jpg", "", "", pattern(20000, 20000)},
			{"r/whole/a.raw", "server", "all", make([]byte, 20000)},
			{"r/whole/empty", "", "", nil},
			{"r/many/a", "server", "many", many},
			{"a.raw", "", "", pattern(20000, 20000)},
		} {
			got, err := os.ReadFile(u.path(c.name))
			must(t, err)
			wantBytes(t, c.name, got, c.want)
			if c.mode == "" {
				u.wantUntouched(option, c.name)
			} else {
				u.wantServed(c.name, c.mode, c.rule)
			}
		}
	})
}

// wantUntouched expects that the policy, if it is asked, does not keep a lower
// file from the kernel; an option may.
func (u *union) wantUntouched(option, name string) {
	u.Helper()
	e := u.explain(name)
	if strings.Contains(e.IOWhy, "policy") || option == policyModes[0].option && e.IOMode != "passthrough" {
		u.Errorf("%s: io mode %q (%s), decided by %q: the policy should leave it alone", name, e.IOMode, e.IOWhy, e.DecidedBy)
	}
}

// manyRanges are more than an answer of the program takes.
func manyRanges() string {
	var all []string
	for i := range 90 {
		all = append(all, fmt.Sprintf("%d+3", 1000*i+17))
	}
	return strings.Join(all, ", ")
}

// TestPolicyRedactPassthrough: files that a rule is asked about but leaves
// alone are passed through, and READ requests do not come.
func TestPolicyRedactPassthrough(t *testing.T) {
	requirePlyfs(t, "policies")
	dir := tempDir(t)
	policy := writePolicy(t, dir, "policy.yaml", `- {path: /, name: jpg, program: redact, match: "*.jpg", whole: true}`+"\n")
	u := newMount(t, mountOpts{dir: dir, options: []string{"policy=" + policy}, lowers: [][]string{{"a.jpg=#100000", "a.png=#100000"}}})
	wantFile(t, u.path("a.png"), string(pattern(100_000, 100_000)))
	st := u.status()
	if st.Opens.Passthrough != 1 || st.Opens.Server != 0 || st.Requests["READ"] != 0 {
		t.Errorf("a.png: %+v, %d READ requests; want one open, passed through", st.Opens, st.Requests["READ"])
	}
	wantFile(t, u.path("a.jpg"), string(make([]byte, 100_000)))
	st = u.status()
	if st.Opens.Passthrough != 1 || st.Opens.Server != 1 || st.Requests["READ"] == 0 {
		t.Errorf("a.jpg: %+v, %d READ requests; want one open more, served", st.Opens, st.Requests["READ"])
	}
	u.setPolicy(writePolicy(t, dir, "other.yaml", `- {path: /, name: png, program: redact, match: "*.png", whole: true}`+"\n"))
	wantFile(t, u.path("a.png"), string(make([]byte, 100_000)))
	wantFile(t, u.path("a.jpg"), string(pattern(100_000, 100_000)))
	u.wantUntouched(policyModes[0].option, "a.jpg")
	p := u.policyStatus().Policy
	if p.Generation != 2 || p.WrongAnswers != 0 || len(p.Rules) != 1 || p.Rules[0].Name != "png" || p.Rules[0].Off != "" {
		t.Errorf("status of the policy: %+v", p)
	}
	// A policy that does not load leaves the old one.
	bad := writePolicy(t, dir, "bad.yaml", `- {path: /, program: redact, ranges: [9-1]}`+"\n")
	out, err := plyfs("policy", "set", u.mp, bad)
	wantRefused(t, "policy set", out, err, bad+":4")
	wantFile(t, u.path("a.png"), string(make([]byte, 100_000)))
}

// TestPolicyRedactDamaged: an image in which the handler cannot be sure is
// refused, not shown.
func TestPolicyRedactDamaged(t *testing.T) {
	requirePlyfs(t, "policies")
	dir := tempDir(t)
	lower := makeTree(t, filepath.Join(dir, "lower"), []string{"photos/"})
	makePhotos(t, filepath.Join(lower, "photos"))
	b, err := os.ReadFile(filepath.Join(lower, "photos/a.jpg"))
	must(t, err)
	i := bytes.Index(b, []byte("Exif\x00\x00"))
	if i < 0 {
		t.Fatal("the JPEG has no Exif")
	}
	copy(b[i+10:], "\xff\xff\xff\xf0") // where the first directory is
	must(t, os.WriteFile(filepath.Join(lower, "photos/damaged.jpg"), b, 0o644))
	policy := writePolicy(t, dir, "policy.yaml", `- {path: /photos, name: gps, program: redact, handler: image-location}`+"\n")
	u := newMount(t, mountOpts{dir: dir, lowerDirs: []string{lower}, options: []string{"policy=" + policy}})
	u.allowEIO = true
	got, err := os.ReadFile(u.path("photos/damaged.jpg"))
	if err == nil {
		if _, places, _ := tagsOf(t, u.path("photos/damaged.jpg")); len(places) > 0 || bytes.Contains(got, []byte("GPSLatitude")) {
			t.Errorf("a damaged image shows %q", places)
		}
		t.Errorf("a damaged image is shown: %d bytes", len(got))
	}
	if n := len(names(t, u.path("photos"))); n < 3 {
		t.Errorf("the directory of a damaged image has %d names", n)
	}
}
