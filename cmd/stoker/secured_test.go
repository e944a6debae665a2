package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/worker/redistest"
)

// The secrets of the secured installation: what must be seen nowhere.
const (
	queuePassword = "canary-7d1f-queue"
	cachePassword = "canary-7d1f-cache"
	sitePassword  = "canary-7d1f-site"
	webhookKey    = "canary-7d1f-webhook-secret"
	dsnPassword   = "canary-7d1f-dsn"
	annToken      = "canary-7d1f-ann"
	benToken      = "canary-7d1f-ben"
	canary        = "canary-7d1f"
)

// secured is an installation as deploy/ has it: two Redises that speak TLS alone and know the users of
// deploy/users.acl, secrets in files, and a console that asks for tokens.
type secured struct {
	*shop
	secrets      []string // what must be seen nowhere
	roots        *x509.CertPool
	queue, cache string // host:port
	web          string
}

func newSecured(t *testing.T) *secured {
	t.Helper()
	s := newShop(t)
	in := &secured{shop: s}
	cert, key, roots := certificates(t, s.dir)
	in.roots = roots
	in.queue = in.startTLS("queue", queuePassword, cert, key)
	in.cache = in.startTLS("cache", cachePassword, cert, key)
	file := func(name, text string) string {
		path := filepath.Join(s.dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	hash := func(token string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(token))) }
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	in.secrets = []string{canary, identity.String()}
	var env []string
	for _, pair := range s.env {
		if !strings.HasPrefix(pair, "STOKER_REDIS_URL=") {
			env = append(env, pair)
		}
	}
	s.env = append(env,
		"SSL_CERT_FILE="+filepath.Join(s.dir, "ca.pem"),
		"STOKER_REDIS_URL_FILE="+file("queue_url", fmt.Sprintf("rediss://stoker:%s@%s/0", queuePassword, in.queue)),
		"STOKER_CACHE_URL_FILE="+file("cache_url", fmt.Sprintf("rediss://stoker:%s@%s/0", cachePassword, in.cache)),
		"STOKER_WEB_TOKENS_FILE="+file("tokens", "ann operate "+hash(annToken)+"\nben view "+hash(benToken)+"\n"),
		"STOKER_WEBHOOK_URL=http://127.0.0.1:1/"+canary, "STOKER_WEBHOOK_SECRET_FILE="+file("webhook", webhookKey),
		"STOKER_SNAPSHOT_KEY_FILE="+file("snapshot_key", identity.String()+"\n"),
		"AWS_ACCESS_KEY_ID=stoker", "AWS_SECRET_ACCESS_KEY="+canary+"-s3", "AWS_REGION=eu-test-1",
		"POSTGRES_DSN=postgres://ann:"+dsnPassword+"@127.0.0.1:1/site", "MYSQL_DSN=ann:"+dsnPassword+"@tcp(127.0.0.1:1)/site",
		"POSTGRES_BROKEN=postgres://ann:"+dsnPassword+"%zz@127.0.0.1:1/site", "MYSQL_BROKEN=ann:"+dsnPassword+"@(127.0.0.1:1/site",
		"POSTGRES_WORDS=host=127.0.0.1 port=1 password="+dsnPassword+" sslmode=nonsense",
	)
	// The life's checks read the cache as its administrator would: by the site's user.
	s.cache = in.dial(in.cache, "site", sitePassword)
	return in
}

// startTLS starts a Redis by redis-start.sh, with TLS and nothing else.
func (in *secured) startTLS(name, password, cert, key string) (addr string) {
	in.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		in.Fatal(err)
	}
	addr = l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	_ = l.Close()
	dir := filepath.Join(in.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		in.Fatal(err)
	}
	for file, text := range map[string]string{"url": "rediss://stoker:" + password + "@" + addr, "site": sitePassword} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			in.Fatal(err)
		}
	}
	deploy, err := filepath.Abs("../../deploy")
	if err != nil {
		in.Fatal(err)
	}
	cmd := exec.Command("sh", filepath.Join(deploy, "redis-start.sh"), filepath.Join(deploy, "redis-"+name+".conf"), filepath.Join(dir, "url"), filepath.Join(dir, "site"),
		"--bind", "127.0.0.1", "--port", "0", "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", filepath.Join(in.dir, "ca.pem"), "--tls-auth-clients", "no")
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		in.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	in.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if in.Failed() {
			in.Logf("the %s Redis said:\n%s", name, out.String())
		}
	})
	health := in.dial(addr, "health", "any")
	redistest.Eventually(in.T, "the "+name+" Redis", func() bool {
		select {
		case <-ended:
			if strings.Contains(out.String(), "tls") {
				in.Skipf("this redis-server has no TLS:\n%s", out.String())
			}
			in.Fatalf("the %s Redis ended:\n%s", name, out.String())
		default:
		}
		return health.Do(context.Background(), "PING").Err() == nil
	})
	return addr
}

func (in *secured) dial(addr, user, password string) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: addr, Username: user, Password: password, MaxRetries: -1, DialerRetries: 1, DisableIdentity: true, TLSConfig: &tls.Config{RootCAs: in.roots, ServerName: "127.0.0.1"}})
	in.Cleanup(func() { _ = c.Close() })
	return c
}

// certificates makes an authority and a certificate of its for 127.0.0.1, and returns their files.
func certificates(t *testing.T, dir string) (cert, key string, roots *x509.CertPool) {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stoker's tests"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "redis"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	serverDER, err := x509.CreateCertificate(rand.Reader, server, ca, &serverKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}))
	write("ca.pem", "CERTIFICATE", caDER)
	return write("redis.crt", "CERTIFICATE", serverDER), write("redis.key", "PRIVATE KEY", keyDER), roots
}
