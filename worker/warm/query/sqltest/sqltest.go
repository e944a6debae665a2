// Package sqltest starts database servers of a test's own: PostgreSQL and MariaDB. A test that
// needs one is skipped, and says so, where the programs are not installed.
package sqltest

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // registers mysql
	_ "github.com/jackc/pgx/v5/stdlib" // registers pgx
)

const (
	startLimit = 60 * time.Second
	pollEvery  = 20 * time.Millisecond
)

// Postgres starts a PostgreSQL server on a Unix socket and returns a DSN for it.
func Postgres(t testing.TB) (dsn string) {
	t.Helper()
	bin := newest("/usr/lib/postgresql/*/bin")
	if bin == "" {
		t.Skip("PostgreSQL is not installed")
	}
	dir, as := directory(t, "postgres")
	data := filepath.Join(dir, "data")
	run(t, as, dir, filepath.Join(bin, "initdb"), "--pgdata", data, "--auth", "trust", "--username", "stoker", "--no-sync", "--encoding", "UTF8")
	serve(t, as, dir, syscall.SIGINT, filepath.Join(bin, "postgres"), "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off")
	dsn = fmt.Sprintf("host=%s user=stoker dbname=postgres sslmode=disable", dir)
	await(t, "pgx", dsn)
	return dsn
}

// MySQL starts a MariaDB server on a Unix socket and returns a DSN for it.
func MySQL(t testing.TB) (dsn string) {
	t.Helper()
	server, err := exec.LookPath("mariadbd")
	if err != nil {
		t.Skip("MariaDB is not installed")
	}
	installer, err := exec.LookPath("mariadb-install-db")
	if err != nil {
		t.Skip("MariaDB is not installed whole: no mariadb-install-db")
	}
	dir, as := directory(t, "mysql")
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "s")
	run(t, as, dir, installer, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db")
	serve(t, as, dir, syscall.SIGTERM, server, "--no-defaults", "--datadir="+data, "--socket="+socket,
		"--skip-networking", "--pid-file="+filepath.Join(dir, "pid"), "--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0")
	root := fmt.Sprintf("root@unix(%s)/", socket)
	await(t, "mysql", root)
	db, err := sql.Open("mysql", root)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "CREATE DATABASE site CHARACTER SET utf8mb4"); err != nil {
		t.Fatal(err)
	}
	return root + "site"
}

// newest returns the last directory that matches.
func newest(pattern string) string {
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		return ""
	}
	return found[len(found)-1]
}

// directory returns a directory whose path is short enough for a socket, and the user to run as:
// both servers refuse to run as root.
func directory(t testing.TB, account string) (string, *syscall.SysProcAttr) {
	t.Helper()
	dir, err := os.MkdirTemp("", "db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if os.Getuid() != 0 {
		return dir, nil
	}
	u, err := user.Lookup(account)
	if err != nil {
		t.Skipf("no account to run the server: %v", err)
	}
	uid, errUID := strconv.Atoi(u.Uid)
	gid, errGID := strconv.Atoi(u.Gid)
	if errUID != nil || errGID != nil {
		t.Fatalf("account %q: %v, %v", account, errUID, errGID)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	return dir, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

func run(t testing.TB, as *syscall.SysProcAttr, dir, program string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir, cmd.SysProcAttr = dir, as
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// serve starts a server and stops it at the test's end.
func serve(t testing.TB, as *syscall.SysProcAttr, dir string, stop os.Signal, program string, args ...string) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.SysProcAttr, cmd.Stdout, cmd.Stderr = dir, as, &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(stop); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil && t.Failed() {
			t.Logf("%s: %v\n%s", program, err, &log)
		}
	})
}

// await returns when the server answers.
func await(t testing.TB, driver, dsn string) {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	limit := time.After(startLimit)
	for {
		if err = db.PingContext(t.Context()); err == nil {
			return
		}
		select {
		case <-limit:
			t.Fatalf("the server does not answer: %v", err)
		case <-poll.C:
		}
	}
}
