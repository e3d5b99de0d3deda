package wholefile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestADirectoryIsMadeWithWhatIsMissingAboveIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "c")
	for range 2 { // one that is there is no error
		if err := MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(dir); err != nil || !st.IsDir() || st.Mode().Perm() != 0o700 {
			t.Errorf("the directory is %v, %v", st, err)
		}
	}
	if err := Write(filepath.Join(dir, "f"), nil); err != nil {
		t.Fatal(err)
	}
	if err := MkdirAll(filepath.Join(dir, "f", "d"), 0o700); err == nil {
		t.Error("a directory was made in a file")
	}
}

func TestAFileIsReplacedAsAWhole(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	for _, content := range []string{"a longer text", "short"} {
		if err := Write(name, []byte(content)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil || string(got) != content {
			t.Errorf("the file is %q (%v), want %q", got, err, content)
		}
	}
	// What cannot be written leaves what was there.
	if err := os.Mkdir(name+".tmp", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(name, []byte("new")); err == nil {
		t.Error("a file that cannot be made was written")
	}
	if got, _ := os.ReadFile(name); string(got) != "short" {
		t.Errorf("the file is %q", got)
	}
}
