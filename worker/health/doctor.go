package health

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/alphanode/stoker/worker/release"
)

// Setup is what an installation looks like, gathered by [Examine]. It holds no secret.
type Setup struct {
	At           time.Time
	Queue, Cache Redis
	QueueURL     Endpoint
	CacheURL     Endpoint
	QueueRights  Answer[Rights]
	CacheRights  Answer[Rights]
	EnvSecrets   []string     // secret settings given in the environment itself
	Files        []SecretFile // files that hold secrets
	WebAddr      string       // host:port
	WebGuarded   bool         // people have to sign in
	Console      Answer[Console]
	BodyLimit    Answer[int] // status that the console answers a body that is too large with
	Version      string      // of this program
	Actor        string      // as whom it notes what its user changes
	Headroom     float64     // share of the cache's memory that work leaves free
	Processes    Answer[[]Process]
	Ticks        Answer[[]Tick]
	Template     string // the key template in force
	Records      []release.Record
	RecordsErr   error
	ActiveBytes  Answer[int64]  // what the active release weighs
	Store        Answer[string] // the snapshot store, written to and read back
	Schedule     Answer[string] // the schedule file, parsed
	Plan         Answer[string] // the plan file, parsed
}

// Answer is what a question was answered with. One that nobody was there to answer has Asked false.
type Answer[T any] struct {
	Asked bool
	Value T
	Err   error
}

// Endpoint is what a Redis URL says about safety, without its password.
type Endpoint struct {
	Host     string // without the port; "" for a Unix socket
	User     string // "" means Redis's user default
	Password bool   // one is given
	TLS      bool
	Unproved bool  // by TLS with a server whose certificate is not looked at
	Err      error // the URL cannot be read
}

// parseEndpoint reads a Redis URL. Its errors do not repeat the URL, which may hold a password.
func parseEndpoint(rawURL string) Endpoint {
	u, err := url.Parse(rawURL)
	if err != nil {
		return Endpoint{Err: errors.New("the URL cannot be read")}
	}
	e := Endpoint{Host: u.Hostname(), User: u.User.Username(), TLS: strings.HasPrefix(u.Scheme, "rediss")}
	_, e.Password = u.User.Password()
	e.Unproved, _ = strconv.ParseBool(u.Query().Get("skip_verify"))
	if u.Scheme == "unix" {
		e.Host = ""
	}
	return e
}

// local reports an endpoint that no other machine is on the way to.
func (e Endpoint) local() bool { return e.Host == "" || loopback(e.Host) }

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// SecretFile is a file that holds secrets, with its permissions.
type SecretFile struct {
	Setting string // the variable that names it
	Path    string
	Mode    fs.FileMode
	Err     error
}

// Diagnose judges an installation: what would hurt later and can be put right now. It is pure.
func Diagnose(s Setup, cfg Config) []Check {
	return []Check{
		judgeAnswer("queue", s.Queue, cfg),
		judgeAnswer("cache", s.Cache, cfg),
		judgeVersion("queue", s.Queue),
		judgeVersion("cache", s.Cache),
		judgeQueuePolicy(s.Queue, cfg),
		judgePersistence(s.Queue),
		judgeTagSafety(s.Cache, cfg),
		judgeOldDump(s.Cache),
		judgeTransport("queue", s.QueueURL),
		judgeTransport("cache", s.CacheURL),
		judgeUser("queue", s.QueueURL),
		judgeUser("cache", s.CacheURL),
		judgeRights("queue", s.QueueRights, s.QueueURL),
		judgeRights("cache", s.CacheRights, s.CacheURL),
		judgeEnvSecrets(s.EnvSecrets),
		judgeFiles(s.Files),
		judgeWeb(s.WebAddr, s.WebGuarded),
		judgeConsole(s.Console, s.WebGuarded),
		judgeBodyLimit(s.BodyLimit),
		judgeActor(s.Actor),
		judgeProcesses(s.Processes),
		judgeMixed(s.Processes, s.Version),
		judgeTemplate(s),
		judgeTwoReleases(s),
		judgeClock("queue", s.Queue),
		judgeClock("cache", s.Cache),
		judgeAnswered("snapshot.store", "snapshot store", s.Store, "check STOKER_SNAPSHOT_URL and that the worker may write there"),
		judgeDrills(s, cfg),
		judgeAnswered("schedule.file", "schedule", s.Schedule, "correct the file that STOKER_SCHEDULE names; a running scheduler keeps its last good one"),
		judgeTicks(s.Ticks),
		judgeAnswered("plan.file", "warm plan", s.Plan, "correct the file that STOKER_PLAN names"),
	}
}

// minVersion is the oldest Redis that works: PEXPIRETIME came with it.
const minVersion = 7

func judgeVersion(name string, r Redis) Check {
	c := Check{Name: name + ".version", Status: OK}
	if len(r.Servers) == 0 {
		return unknown(c, "version of the "+name+" Redis", r.Err)
	}
	for _, s := range r.Servers {
		version := s.Info["redis_version"]
		head, _, _ := strings.Cut(version, ".")
		major, err := strconv.Atoi(head)
		switch {
		case err != nil:
			return unknown(c, "version of the "+name+" Redis", nil)
		case major < minVersion:
			c.Status, c.Detail = Fail, fmt.Sprintf("the %s Redis is version %s", name, version)
			c.Remedy = "stoker needs Redis 7.0 or later, or Valkey"
			return c
		}
		c.Detail = "version " + version
	}
	return c
}

func judgeTransport(name string, e Endpoint) Check {
	c := Check{Name: name + ".transport", Status: OK, Detail: "encrypted (TLS)"}
	switch {
	case e.Err != nil:
		c.Status, c.Detail, c.Remedy = Fail, e.Err.Error(), "correct "+urlSetting(name)
	case e.local():
		c.Detail = "loopback or Unix socket"
	case e.TLS && e.Unproved:
		c.Status, c.Detail = Warn, fmt.Sprintf("whether %s is who it says is not looked at (skip_verify): whoever stands between reads passwords and pages", e.Host)
		c.Remedy = "take skip_verify out of " + urlSetting(name) + ", and name the authority's certificate in SSL_CERT_FILE where it is your own"
	case !e.TLS:
		c.Status, c.Detail = Warn, fmt.Sprintf("the connection to %s is not encrypted: passwords and pages cross the network in the clear", e.Host)
		c.Remedy = "use rediss:// in " + urlSetting(name) + ", or accept it on a private network"
	}
	return c
}

func judgeUser(name string, e Endpoint) Check {
	c := Check{Name: name + ".user", Status: OK, Detail: "a user of its own"}
	switch {
	case e.Err != nil:
		return unknown(c, "user of the "+name+" Redis", e.Err)
	case e.local():
		c.Detail = "loopback or Unix socket"
	case !e.Password:
		c.Status, c.Detail = Fail, fmt.Sprintf("%s is used without a password: whoever reaches it may change or flush everything", e.Host)
		c.Remedy = "give stoker a user with a password and the least rights (deploy/users.acl)"
	case e.User == "" || e.User == "default":
		c.Status, c.Detail = Warn, "Redis's user default is used, which may do everything"
		c.Remedy = "give stoker a user of its own with the least rights (deploy/users.acl)"
	}
	return c
}

func judgeEnvSecrets(names []string) Check {
	c := Check{Name: "secrets.environment", Status: OK, Value: float64(len(names)), Detail: "no secret stands in the environment"}
	if len(names) > 0 {
		c.Status, c.Detail = Warn, "secrets stand in the environment, where child processes, crash reports and `docker inspect` show them: "+strings.Join(names, ", ")
		c.Remedy = "put each in a file and name the file in the variable with _FILE behind; AWS keys into the file that AWS_SHARED_CREDENTIALS_FILE names"
	}
	return c
}

// judgeActor: the ledger and the tasks note who did it, and a colleague asks them later.
func judgeActor(actor string) Check {
	c := Check{Name: "audit.actor", Status: OK, Detail: "what is changed from here is noted as done by " + actor}
	switch {
	case actor == "":
		return unasked(c)
	case strings.HasPrefix(actor, "unknown@"):
		c.Status, c.Detail = Warn, "what is changed from here is noted as done by "+actor+": nobody can tell later who it was"
		c.Remedy = "set USER to the person's name; in a container: docker compose run -e USER …"
	}
	return c
}

func judgeFiles(files []SecretFile) Check {
	c := Check{Name: "secrets.files", Status: OK, Detail: fmt.Sprintf("%d files, none open to other users", len(files))}
	for _, f := range files {
		var status Status
		var detail, remedy string
		switch {
		case f.Err != nil:
			status, detail, remedy = Fail, fmt.Sprintf("%s: %v", f.Setting, f.Err), "correct the path, or let stoker's user read the file"
		case f.Mode.Perm()&0o022 != 0:
			status, detail = Fail, fmt.Sprintf("%s: others may write %q (mode %04o)", f.Setting, f.Path, f.Mode.Perm())
			remedy = "chmod 600 it, and change the secret: it may have been replaced"
		case f.Mode.Perm()&0o004 != 0:
			status, detail = Warn, fmt.Sprintf("%s: every user may read %q (mode %04o)", f.Setting, f.Path, f.Mode.Perm())
			remedy = "chmod 600 it (640 where a group must read it)"
		}
		if weight[status] > weight[c.Status] {
			c.Status, c.Detail, c.Remedy = status, detail, remedy
		}
	}
	return c
}

func judgeWeb(addr string, guarded bool) Check {
	c := Check{Name: "web.address", Status: OK, Detail: addr}
	host, _, err := net.SplitHostPort(addr)
	switch {
	case addr == "":
		c.Status, c.Detail = Unknown, "the address of stoker web is not known here"
	case err != nil:
		c.Status, c.Detail, c.Remedy = Fail, fmt.Sprintf("address %q: %v", addr, err), "use host:port in STOKER_WEB_ADDR"
	case loopback(host):
		c.Detail = addr + " is reachable from this machine only"
	case !guarded:
		c.Status, c.Detail = Fail, addr+" is reachable from other machines, and nobody has to sign in"
		c.Remedy = "set STOKER_WEB_TOKENS_FILE, STOKER_WEB_OIDC_ISSUER or STOKER_WEB_PROXY_USER, or STOKER_WEB_ADDR=127.0.0.1:8080"
	default:
		c.Detail = addr + ", with sign-in"
	}
	return c
}

// judgeTemplate: a release whose namespace was made with another template is out of reach of
// invalidations, expiry and rollback.
func judgeTemplate(s Setup) Check {
	c := Check{Name: "key.template", Status: OK, Detail: s.Template}
	if s.RecordsErr != nil {
		return unknown(c, "the ledger", s.RecordsErr)
	}
	var strangers []string
	for _, r := range s.Records {
		if r.State != release.Expired && r.Template != "" && r.Template != s.Template {
			strangers = append(strangers, fmt.Sprintf("%s (%s, %q)", r.ID, r.State, r.Template))
		}
	}
	if len(strangers) > 0 {
		c.Status, c.Value = Fail, float64(len(strangers))
		c.Detail = fmt.Sprintf("the key template is %q, but these releases were made with another and are out of reach: %s", s.Template, strings.Join(strangers, ", "))
		c.Remedy = "set STOKER_KEY_TEMPLATE back until they are expired"
	}
	return c
}

// judgeTwoReleases: a new release is warmed while the active one is served, so the cache must
// hold both.
func judgeTwoReleases(s Setup) Check {
	c := Check{Name: "cache.two_releases", Status: OK}
	const what = "whether the cache Redis has room for a second release"
	switch {
	case !s.ActiveBytes.Asked:
		c.Status, c.Detail = Unknown, "no release is active yet, so the weight of one is not known"
		return c
	case s.ActiveBytes.Err != nil:
		return unknown(c, what, s.ActiveBytes.Err)
	case len(s.Cache.Servers) == 0:
		return unknown(c, what, s.Cache.Err)
	}
	var free int64
	for _, server := range s.Cache.Servers {
		used, limit, _, ok := server.memory()
		if !ok {
			return unknown(c, what, nil)
		}
		free += max(int64(float64(limit)*(1-s.Headroom))-used, 0)
	}
	need := s.ActiveBytes.Value
	c.Value = float64(free - need)
	c.Detail = fmt.Sprintf("the active release weighs about %s, %s are free beside the headroom", humanize.IBytes(uint64(need)), humanize.IBytes(uint64(free)))
	if free < need {
		c.Status = Warn
		c.Remedy = "raise the cache Redis's maxmemory, or expire a standby first (stoker expire --release ID): the next warm will evict entries or fail"
	}
	return c
}

// maxSkew is how far clocks may be apart before expiry times and ages mislead.
const maxSkew = 2 * time.Second

func judgeClock(name string, r Redis) Check {
	c := Check{Name: name + ".clock", Status: OK}
	worst := time.Duration(0)
	for _, s := range r.Servers {
		if s.Skew == nil {
			return unknown(c, "clock of the "+name+" Redis", nil)
		}
		if s.Skew.Abs() > worst.Abs() {
			worst = *s.Skew
		}
	}
	if len(r.Servers) == 0 {
		return unknown(c, "clock of the "+name+" Redis", r.Err)
	}
	c.Value, c.Detail = worst.Seconds(), fmt.Sprintf("%v from this machine's", worst.Round(time.Millisecond))
	if worst.Abs() > maxSkew {
		c.Status = Warn
		c.Remedy = "run an NTP client on both machines: numbers come from the queue Redis's clock, ages and cron ticks from the worker's"
	}
	return c
}

// judgeDrills: the readiness to roll back to an archive is what the last drill showed.
func judgeDrills(s Setup, cfg Config) Check {
	if s.RecordsErr != nil {
		return judgeDrill(Drills{Err: s.RecordsErr}, s.At, cfg)
	}
	return judgeDrill(newestDrill(s.Records), s.At, cfg)
}

// unasked is the check of a question that nobody here could answer.
func unasked(c Check) Check {
	c.Status, c.Detail = Unknown, "nobody here could be asked"
	return c
}

func judgeAnswered(name, what string, a Answer[string], remedy string) Check {
	c := Check{Name: name, Status: OK, Detail: a.Value}
	switch {
	case !a.Asked:
		c.Status, c.Detail = Unknown, "no "+what+" is configured here"
	case a.Err != nil:
		c.Status, c.Detail, c.Remedy = Fail, what+": "+a.Err.Error(), remedy
	}
	return c
}
