package snapshot_test

import (
	"errors"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/snapshot"
	"github.com/alphanode/stoker/worker/snapshot/s3test"
	"github.com/alphanode/stoker/worker/snapshot/storetest"
)

func mustOpen(t *testing.T, url string) snapshot.Store {
	t.Helper()
	s, err := snapshot.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestS3Store(t *testing.T) {
	server := s3test.Start(t)
	storetest.Run(t, func(t *testing.T) (snapshot.Store, func() snapshot.Store) {
		url := server.Bucket(t, "bucket-"+strings.ToLower(filepath.Base(t.Name())))
		return mustOpen(t, url), func() snapshot.Store { return mustOpen(t, url) }
	})
}

// TestS3LeavesOthersAlone: what else is in the bucket is neither listed nor in the way.
func TestS3LeavesOthersAlone(t *testing.T) {
	server := s3test.Start(t)
	at := server.Bucket(t, "shared")
	here := mustOpen(t, at)
	there := mustOpen(t, strings.Replace(at, "/archives?", "/archives/deeper?", 1))
	root := mustOpen(t, strings.Replace(at, "/archives?", "?", 1))
	for i, s := range []snapshot.Store{here, there, root} {
		if err := write(t, s, "r1.stoker", strings.Repeat("x", i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(server.Dir, "shared", "archives", "not an archive"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, s := range []snapshot.Store{here, there, root} {
		list, err := s.List(t.Context())
		if err != nil || len(list) != 1 || list[0].Size != int64(i+1) {
			t.Errorf("%s lists %v, %v", s, list, err)
		}
	}
	if err := snapshot.Probe(t.Context(), here); err != nil {
		t.Errorf("probe: %v", err)
	}
}

func write(t *testing.T, s snapshot.Store, name, text string) error {
	t.Helper()
	d, err := s.Create(t.Context(), name)
	if err != nil {
		return err
	}
	_, err = io.WriteString(d, text)
	return errors.Join(err, d.Commit())
}

func TestS3SaysWhatIsWrong(t *testing.T) {
	server := s3test.Start(t)
	good := server.Bucket(t, "there")
	for name, c := range map[string]struct {
		url   string
		env   map[string]string
		cause error
		says  string
	}{
		"no bucket":      {strings.Replace(good, "there", "elsewhere", 1), nil, tasks.ErrInvalid, `there is no bucket "elsewhere"`},
		"unknown user":   {good, map[string]string{"AWS_ACCESS_KEY_ID": "nobody"}, tasks.ErrInvalid, "does not accept the credentials"},
		"wrong secret":   {good, map[string]string{"AWS_SECRET_ACCESS_KEY": "top-secret-typo"}, tasks.ErrInvalid, "does not accept the credentials"},
		"wrong region":   {good + "&region=eu-test-9", nil, tasks.ErrInvalid, `not in region "eu-test-9"`},
		"nobody answers": {strings.Replace(good, server.Endpoint, "http://127.0.0.1:1", 1), nil, nil, "http://127.0.0.1:1 does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			s := mustOpen(t, c.url)
			_, listErr := s.List(t.Context())
			_, openErr := s.Open(t.Context(), "r1.stoker")
			for what, err := range map[string]error{"list": listErr, "open": openErr, "probe": snapshot.Probe(t.Context(), s)} {
				if err == nil || !strings.Contains(err.Error(), c.says) || c.cause != nil && !errors.Is(err, c.cause) {
					t.Errorf("%s: %v\nwant %v: …%s…", what, err, c.cause, c.says)
				}
				if err != nil && (strings.Contains(err.Error(), s3test.SecretKey) || strings.Contains(err.Error(), "top-secret-typo")) {
					t.Errorf("%s tells the secret: %v", what, err)
				}
			}
		})
	}
}

func TestS3URLs(t *testing.T) {
	for raw, want := range map[string]string{
		"s3://bucket":                             "s3://bucket",
		"s3://bucket/":                            "s3://bucket",
		"s3://bucket/a/b/?region=eu-west-1":       "s3://bucket/a/b",
		"s3://bucket?endpoint=https://minio:9000": "s3://bucket?endpoint=https://minio:9000",
		"s3://bucket/a?endpoint=http%3A%2F%2F10.0.0.1&path_style=true": "s3://bucket/a?endpoint=http://10.0.0.1",
	} {
		if got := mustOpen(t, raw).String(); got != want {
			t.Errorf("%s is called %q, want %q", raw, got, want)
		}
	}
	for _, raw := range []string{
		"s3://", "s3:///dir", "s3://Bucket", "s3://ab", "s3://user:secret@bucket", "s3://bucket?path_style=maybe",
		"s3://bucket?endpoint=minio:9000", "s3://bucket?endpoint=https://user:secret@minio", "s3://bucket?acess_key=secret", "s3://bucket?endpoint=ftp://x",
	} {
		_, err := snapshot.Open(raw)
		if !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), "STOKER_SNAPSHOT_URL") || strings.Contains(err.Error(), "secret@") || strings.Contains(err.Error(), ":secret") {
			t.Errorf("%s: %v", raw, err)
		}
	}
	t.Setenv("AWS_ENDPOINT_URL_S3", "https://minio:9000")
	if got, want := mustOpen(t, "s3://bucket").String(), mustOpen(t, "s3://bucket?endpoint="+url.QueryEscape("https://minio:9000")).String(); got != want {
		t.Errorf("an endpoint from the environment makes %q, one from the URL %q", got, want)
	}
}

// TestS3Credentials come from a profile's file as well.
func TestS3Credentials(t *testing.T) {
	server := s3test.Start(t)
	at := server.Bucket(t, "profiles")
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	file := filepath.Join(t.TempDir(), "credentials")
	text := "[default]\naws_access_key_id = nobody\naws_secret_access_key = x\n[stoker]\naws_access_key_id = " + s3test.AccessKey + "\naws_secret_access_key = " + s3test.SecretKey + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	if err := snapshot.Probe(t.Context(), mustOpen(t, at)); err == nil || !strings.Contains(err.Error(), "does not accept the credentials") {
		t.Errorf("with the default profile: %v", err)
	}
	t.Setenv("AWS_PROFILE", "stoker")
	if err := snapshot.Probe(t.Context(), mustOpen(t, at)); err != nil {
		t.Errorf("with the profile: %v", err)
	}
}
