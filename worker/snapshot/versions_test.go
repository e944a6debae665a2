package snapshot

import (
	"reflect"
	"strings"
	"testing"
)

// A reader refuses an archive whose header or footer has a field that it does not know: a new one needs a new
// format version, or workers from before an upgrade take the archive for damaged.
func TestFieldsOfTheVersions(t *testing.T) {
	for want, form := range map[string]any{
		"app release prefix mark epoch server created":          Header{},
		"blocks entries bytes tags dumps dump_version checksum": Footer{},
	} {
		var names []string
		for i := range reflect.TypeOf(form).NumField() {
			if name, _, _ := strings.Cut(reflect.TypeOf(form).Field(i).Tag.Get("json"), ","); name != "-" {
				names = append(names, name)
			}
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%T has the fields %s, versions up to %d have %s", form, got, archives.Last(), want)
		}
	}
}
