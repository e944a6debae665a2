package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/alphanode/stoker/tasks"
)

// awsEndpoint is where buckets are unless told otherwise.
const awsEndpoint = "https://s3.amazonaws.com"

// place3 is where an S3Store keeps its archives.
type place3 struct {
	bucket   string
	prefix   string // of the objects' keys: "" or something that ends in /
	region   string // "": the server is asked
	endpoint string // scheme and host
	path     bool   // the bucket stands in the path, not in the host name
}

func (p place3) key(name string) string { return p.prefix + name }

// String is the place as a URL: the same wherever its parts came from. The region is not one
// of them, since a bucket has only one.
func (p place3) String() string {
	s := "s3://" + p.bucket
	if p.prefix != "" {
		s += "/" + strings.TrimSuffix(p.prefix, "/")
	}
	if p.endpoint != awsEndpoint {
		s += "?endpoint=" + p.endpoint
	}
	return s
}

const s3Form = "s3://bucket/prefix?region=eu-west-1, with &endpoint=https://host:port and &path_style=true for servers other than Amazon's"

var bucketPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// parsePlace3 reads the URL of a bucket; env has what the URL leaves out.
func parsePlace3(u *url.URL, env func(string) string) (place3, error) {
	p := place3{bucket: u.Host, region: cmp.Or(env("AWS_REGION"), env("AWS_DEFAULT_REGION"))}
	refuse := func(format string, args ...any) (place3, error) {
		return p, fmt.Errorf("%w: snapshot URL: %s: use %s (STOKER_SNAPSHOT_URL)", tasks.ErrInvalid, fmt.Sprintf(format, args...), s3Form)
	}
	if u.User != nil { // what stands there may be a secret, so it is not repeated
		return refuse("it holds a user or password: credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a credentials file or the machine's role")
	}
	if !bucketPattern.MatchString(p.bucket) {
		return refuse("bucket %q", p.bucket)
	}
	if dir := strings.Trim(u.Path, "/"); dir != "" {
		p.prefix = dir + "/"
	}
	endpoint := cmp.Or(env("AWS_ENDPOINT_URL_S3"), env("AWS_ENDPOINT_URL"), awsEndpoint)
	for name, values := range u.Query() {
		value := values[0]
		switch name {
		case "region":
			p.region = value
		case "endpoint":
			endpoint = value
		case "path_style":
			if value != "true" && value != "false" {
				return refuse("path_style %q", value)
			}
			p.path = value == "true"
		default:
			return refuse("unknown parameter %q", name)
		}
	}
	at, err := url.Parse(endpoint)
	if err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" || strings.Trim(at.Path, "/") != "" || at.RawQuery != "" || at.User != nil {
		return refuse("the endpoint is not of the form https://host:port")
	}
	p.endpoint = at.Scheme + "://" + at.Host
	if host := at.Hostname(); net.ParseIP(host) != nil || host == "localhost" {
		p.path = true // no bucket's name can stand before an address
	}
	return p, nil
}

// newS3Store returns the store at a place without touching it.
func newS3Store(p place3) (*S3Store, error) {
	host, secure := strings.CutPrefix(p.endpoint, "https://")
	host = strings.TrimPrefix(host, "http://")
	lookup := minio.BucketLookupDNS
	if p.path {
		lookup = minio.BucketLookupPath
	}
	client, err := minio.NewCore(host, &minio.Options{
		Creds: s3Credentials(), Secure: secure, Region: p.region, BucketLookup: lookup, MaxRetries: requestTries,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: snapshot URL %s: %v (STOKER_SNAPSHOT_URL)", tasks.ErrInvalid, p, err)
	}
	return &S3Store{place: p, client: *client, part: firstPart}, nil
}

// s3Credentials looks where other S3 programs do: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; the
// profile AWS_PROFILE of AWS_SHARED_CREDENTIALS_FILE; the role of the machine, container or pod.
func s3Credentials() *credentials.Credentials {
	const patience = 5 * time.Second // outside of a cloud nobody answers for the machine's role
	return credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{},
		&credentials.FileAWSCredentials{},
		&credentials.IAM{Client: &http.Client{Timeout: patience}, Region: os.Getenv("AWS_REGION")},
	})
}

// explain turns a server's answer into what an operator can act on. What only an operator can
// put right is refused; what may pass (a network, an overloaded server) is left to retries.
func (s *S3Store) explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	answer := minio.ToErrorResponse(err)
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s: %s", tasks.ErrInvalid, s, fmt.Sprintf(format, args...))
	}
	switch answer.Code {
	case minio.NoSuchBucket:
		return invalid("there is no bucket %q: create it, or correct STOKER_SNAPSHOT_URL", s.place.bucket)
	case minio.AccessDenied, "Forbidden", "AllAccessDisabled":
		if s.anonymous() {
			return invalid("no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE with a credentials file, or give the machine a role")
		}
		return fmt.Errorf("%w: %s: access denied: the credentials need s3:GetObject, s3:PutObject, s3:DeleteObject, s3:AbortMultipartUpload and s3:ListBucket there (s3:ListMultipartUploadParts and s3:ListBucketMultipartUploads, too, for interrupted uploads)", tasks.ErrRefused, s)
	case "AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException", "IncorrectEndpoint", "InvalidRegion", "301 Moved Permanently":
		right := ""
		if answer.Region != "" {
			right = fmt.Sprintf(" (it is in %q)", answer.Region)
		}
		return invalid("the bucket is not in region %q%s: correct region in STOKER_SNAPSHOT_URL, or AWS_REGION", s.place.region, right)
	case minio.NoSuchUpload:
		return fmt.Errorf("%s: the upload was dropped under way: try again", s)
	case minio.PreconditionFailed:
		return fmt.Errorf("%s: the archive was replaced while it was read: try again", s)
	}
	unknownUser := answer.StatusCode == http.StatusNotFound && strings.Contains(answer.Code, "User")
	if answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden || unknownUser { // whatever the server calls it
		return invalid("the server does not accept the credentials (%s, %s): check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the profile's", answer.Code, strings.TrimSuffix(answer.Message, "."))
	}
	var network net.Error
	if errors.As(err, &network) || minio.IsNetworkOrHostDown(err, true) {
		return fmt.Errorf("%s: %s does not answer: %w (does it run, and is the endpoint of STOKER_SNAPSHOT_URL right?)", s, s.place.endpoint, err)
	}
	return fmt.Errorf("%s: %w", s, err)
}

// anonymous reports whether requests are sent without credentials, because none were found.
func (s *S3Store) anonymous() bool {
	c, err := s.client.GetCreds()
	return err != nil || c.SignerType.IsAnonymous()
}
