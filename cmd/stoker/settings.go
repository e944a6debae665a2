package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/kelseyhightower/envconfig"

	"github.com/alphanode/stoker/scheduler"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker"
	"github.com/alphanode/stoker/worker/governor"
	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/health/freshness"
	"github.com/alphanode/stoker/worker/notify"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
	"github.com/alphanode/stoker/worker/warm"
	"github.com/alphanode/stoker/worker/warm/origin"
	"github.com/alphanode/stoker/worker/warm/refresh"

	"github.com/alphanode/stoker/cmd/stoker/remote"
	"github.com/alphanode/stoker/cmd/stoker/web"
)

// envPrefix begins the name of every setting.
const envPrefix = "STOKER"

// settings are every room's, read from the environment.
type settings struct {
	Tasks     tasks.Config
	Worker    worker.Config
	Warm      warm.Config
	Origin    origin.Config
	Refresh   refresh.Config
	Governor  governor.Config
	Snapshot  snapshot.Config
	Retain    release.Config
	Health    health.Config
	Freshness freshness.Config
	Notify    notify.Config
	Scheduler scheduler.Config
	Web       web.Config
	Remote    remote.Config
}

// rooms returns the parts, in the order in which people read them.
func (s *settings) rooms() []interface{ Validate() error } {
	return []interface{ Validate() error }{&s.Tasks, &s.Worker, &s.Warm, &s.Origin, &s.Refresh, &s.Governor, &s.Snapshot, &s.Retain, &s.Health, &s.Freshness, &s.Notify, &s.Scheduler, &s.Web, &s.Remote}
}

// secrets are the settings that can also be read from the file that NAME_FILE names, so that
// no password need stand in the environment. The first are URLs of Redises.
var (
	redisURLs = []string{"STOKER_REDIS_URL", "STOKER_CACHE_URL"}
	secrets   = append(slices.Clip(redisURLs), webhookURL, "STOKER_WEBHOOK_SECRET")
)

// webhookURL is an address whose path is a secret.
const webhookURL = "STOKER_WEBHOOK_URL"

// loadSettings reads and validates every setting; the error names each that is wrong.
func loadSettings() (*settings, error) {
	forget, err := readSecretFiles()
	defer forget()
	if err != nil {
		return nil, err
	}
	s := &settings{}
	errs := unreadableURLs()
	for _, room := range s.rooms() {
		if err := envconfig.Process(envPrefix, room); err != nil {
			errs = append(errs, explain(err))
			continue
		}
		if err := room.Validate(); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return s, nil
}

// loadRemote reads and validates what the command line needs to go by the API, and no other setting.
func loadRemote() (remote.Config, error) {
	var cfg remote.Config
	if err := envconfig.Process(envPrefix, &cfg); err != nil {
		return cfg, explain(err)
	}
	return cfg, errors.Join(cfg.Validate(), cfg.Complete())
}

// unreadableURLs finds the URLs that are none. They are not shown: an unescaped character in a
// password is the usual reason.
func unreadableURLs() []error {
	var errs []error
	for _, name := range redisURLs {
		if _, ok := readURL(os.Getenv(name)); !ok {
			errs = append(errs, fmt.Errorf("%w: %s is not a URL: use redis://user:password@host:6379/0, with %%-escapes for special characters in the password", tasks.ErrInvalid, name))
		}
	}
	return errs
}

// explain says what to write instead of a value that is of the wrong form.
func explain(err error) error {
	var parse *envconfig.ParseError
	if !errors.As(err, &parse) {
		return fmt.Errorf("%w: %v", tasks.ErrInvalid, err)
	}
	form := map[string]string{
		"time.Duration": "a duration such as 30s, 10m or 24h", "int": "a whole number", "int64": "a whole number",
		"release.Size": "a size such as 64MiB or 2GiB", "bool": "true or false", "float64": "a number",
		"[]netip.Prefix": "networks such as 10.0.0.0/8, separated by commas; a single address as 10.0.0.5/32",
	}[parse.TypeName]
	if form == "" {
		form = "a " + parse.TypeName
	}
	return fmt.Errorf("%w: %s %q: use %s", tasks.ErrInvalid, parse.KeyName, parse.Value, form)
}

// readSecretFiles puts what files hold into the environment, where the rooms' settings are read from. forget
// takes it out again: child processes would inherit it.
func readSecretFiles() (forget func(), err error) {
	var read []string
	forget = func() {
		for _, name := range read {
			_ = os.Unsetenv(name)
		}
	}
	for _, name := range secrets {
		value, ok, err := secretFrom(name)
		switch {
		case err != nil:
			return forget, fmt.Errorf("%w: %s_FILE: %v", tasks.ErrInvalid, name, err)
		case !ok:
			continue
		case os.Getenv(name) != "":
			return forget, fmt.Errorf("%w: both %s and %s_FILE are set: keep one", tasks.ErrInvalid, name, name)
		}
		if err := os.Setenv(name, value); err != nil {
			return forget, fmt.Errorf("%s_FILE: %w", name, err)
		}
		read = append(read, name)
	}
	return forget, nil
}

// secretFrom reads a secret setting from the file that its variable with _FILE behind names; false when there is
// no such variable.
func secretFrom(name string) (value string, ok bool, err error) {
	file := os.Getenv(name + "_FILE")
	if file == "" {
		return "", false, nil
	}
	raw, err := os.ReadFile(file)
	return strings.TrimSpace(string(raw)), true, err
}

// setting is one variable as it stands.
type setting struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	Source  string `json:"source"` // default, environment or file
	Default string `json:"default"`
	Help    string `json:"help"`
}

// describe lists every setting once, with passwords blotted out.
func describe() []setting {
	s := &settings{}
	var all []setting
	for _, room := range s.rooms() {
		for _, v := range variables(reflect.TypeOf(room).Elem()) {
			if slices.ContainsFunc(all, func(have setting) bool { return have.Name == v.Name }) {
				continue // two rooms heed it
			}
			v.Value, v.Source = v.Default, "default"
			if value, ok := os.LookupEnv(v.Name); ok {
				v.Value, v.Source = value, "environment"
			}
			if slices.Contains(secrets, v.Name) {
				if value, ok, _ := secretFrom(v.Name); ok { // loading the settings tells of its error
					v.Value, v.Source = value, "file "+os.Getenv(v.Name+"_FILE")
				}
			}
			v.Value = conceal(v.Name, v.Value)
			all = append(all, v)
		}
	}
	return all
}

// variables names a room's settings as envconfig does: the prefix and the field's words.
func variables(room reflect.Type) []setting {
	var out []setting
	for i := range room.NumField() {
		f := room.Field(i)
		out = append(out, setting{
			Name:    envPrefix + "_" + strings.ToUpper(words(f.Name)),
			Default: f.Tag.Get("default"),
			Help:    f.Tag.Get("desc"),
		})
	}
	return out
}

// words puts an underscore between the words of a field's name, as envconfig's split_words does.
func words(name string) string {
	var b strings.Builder
	for i, r := range name {
		upper := r >= 'A' && r <= 'Z'
		if upper && i > 0 {
			before := name[i-1]
			afterLower := i+1 < len(name) && name[i+1] >= 'a' && name[i+1] <= 'z'
			if before >= 'a' && before <= 'z' || afterLower {
				b.WriteByte('_')
			}
		}
		b.WriteRune(r)
	}
	return b.String()
}

// unknownSettings returns the STOKER_ variables that no setting reads: most likely misspelt.
func unknownSettings() []string {
	known := describe()
	var unknown []string
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, envPrefix+"_") || strings.HasPrefix(name, envPrefix+"_TEST_") {
			continue
		}
		base := strings.TrimSuffix(name, "_FILE")
		isKnown := slices.ContainsFunc(known, func(s setting) bool { return s.Name == name }) || base != name && slices.Contains(secrets, base)
		if !isKnown {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}

// readURL parses a URL that may hold a password; false when it cannot be told where.
func readURL(value string) (*url.URL, bool) {
	u, err := url.Parse(value)
	return u, err == nil && (u.User != nil || !strings.Contains(value, "@"))
}

// conceal returns a setting's value without what is secret in it.
func conceal(name, value string) string {
	switch {
	case value == "":
		return ""
	case name == webhookURL:
		u, err := url.Parse(value)
		if err != nil || u.Host == "" {
			return blot
		}
		return u.Scheme + "://" + u.Host + "/" + blot
	case slices.Contains(redisURLs, name), strings.Contains(value, "://") && !slices.Contains(secrets, name):
		return redact(value)
	case slices.Contains(secrets, name):
		return blot
	}
	return value
}

// blot stands where a password was.
const blot = "xxxxx"

// redact hides the password of a URL, and all of one that cannot be read.
func redact(value string) string {
	u, ok := readURL(value)
	if !ok {
		return blot
	}
	query := u.Query()
	_, inUser := u.User.Password()
	inQuery := query.Has("password") // of a Sentinel group's servers
	if inQuery {
		query.Set("password", blot)
		u.RawQuery = query.Encode()
	}
	if !inUser && !inQuery {
		return value
	}
	return u.Redacted()
}
