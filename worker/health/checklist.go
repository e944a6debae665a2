package health

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/alphanode/stoker/worker/release"
)

// securityChecks are those of the doctor that a release's note repeats.
var securityChecks = []string{
	"queue.transport", "cache.transport", "queue.user", "cache.user", "queue.rights", "cache.rights", "secrets.environment", "secrets.files", "web.address", "web.answers", "queue.policy", "cache.tags",
}

// Checklist is the security checklist of a release: how it came to be served, what it touched, and
// the doctor's checks that bear on security. certificate is its verdict, "" without one. It is pure.
func Checklist(r release.Record, history []release.Move, certificate string, doctor []Check) []Check {
	list := []Check{judgeCertified(history, certificate), judgeTouched(r.Files), judgeTold(r.Notes)}
	for _, c := range doctor {
		if slices.Contains(securityChecks, c.Name) {
			list = append(list, c)
		}
	}
	return list
}

func judgeCertified(history []release.Move, certificate string) Check {
	c := Check{Name: "release.certificate", Status: OK, Detail: "served with a passed certificate"}
	for _, m := range history {
		if m.To == release.Active && strings.Contains(m.By.Reason, "forced: ") {
			c.Status, c.Detail = Warn, "it was served by force, without a passed certificate ("+m.Actor+")"
			c.Remedy = "warm it, and look at the certificate: stoker warm ID"
			return c
		}
	}
	if certificate != "pass" {
		c.Status, c.Detail = Unknown, "no passed certificate"
	}
	return c
}

// secretLike are names that files with secrets tend to have.
var secretLike = []string{"*.env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "id_rsa*", "id_ed25519*", "*.kdbx", "*credentials*", "*secret*", "*.htpasswd", ".netrc", ".pgpass"}

// judgeTouched: a secret that is in a repository is told to everybody who may read it.
func judgeTouched(files []string) Check {
	c := Check{Name: "release.files", Status: OK, Detail: fmt.Sprintf("%d files touched, none with the name of a secret", len(files))}
	if len(files) == 0 {
		c.Status, c.Detail = Unknown, "no files are noted"
		return c
	}
	for _, f := range files {
		for _, pattern := range secretLike {
			if ok, _ := path.Match(pattern, strings.ToLower(path.Base(f))); ok {
				c.Status, c.Detail = Warn, fmt.Sprintf("%q has the name of a file with secrets", f)
				c.Remedy = "see that it holds none; if it does, change them: the repository has told them"
				return c
			}
		}
	}
	return c
}

// judgeTold: who takes a release back at night needs to know whose it is, and which build.
func judgeTold(n release.Notes) Check {
	c := Check{Name: "release.notes", Status: OK, Detail: "owner, revision and reason are noted"}
	var lacks []string
	for _, f := range []Field{{"owner", n.Owner}, {"revision", n.Revision}, {"reason", n.Reason}} {
		if f.Value == "" {
			lacks = append(lacks, f.Name)
		}
	}
	if len(lacks) > 0 {
		c.Status, c.Detail = Warn, "not noted: "+strings.Join(lacks, ", ")
		c.Remedy = "give them to stoker release create, in the site's git repository or by flags"
	}
	return c
}
