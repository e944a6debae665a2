package query

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // registers pgx
	_ "modernc.org/sqlite"             // registers sqlite

	"github.com/alphanode/stoker/tasks"
)

// open returns the database whose DSN is in the variable named env, or in the file that
// env_FILE names. It does not dial. Its errors never hold the DSN.
func open(driver, env string, getenv func(string) string) (*sql.DB, error) {
	dsn, err := secret(env, getenv)
	if err != nil {
		return nil, err
	}
	db, err := openDSN(driver, dsn)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %s", tasks.ErrInvalid, env, strings.ReplaceAll(err.Error(), dsn, "***"))
	}
	db.SetMaxOpenConns(2)
	return db, nil
}

func openDSN(driver, dsn string) (*sql.DB, error) {
	switch driver {
	case "postgres":
		return sql.Open("pgx", dsn)
	case "sqlite":
		return sql.Open("sqlite", dsn)
	case "mysql":
		cfg, err := mysql.ParseDSN(dsn)
		if err != nil {
			return nil, errors.New("not a DSN: use user:password@tcp(host:3306)/database")
		}
		cfg.ParseTime = true // a time column becomes RFC 3339, as with the other drivers
		conn, err := mysql.NewConnector(cfg)
		if err != nil {
			return nil, errors.New("not a DSN that the driver takes")
		}
		return sql.OpenDB(conn), nil
	}
	return nil, fmt.Errorf("unknown driver %q", driver)
}

func secret(env string, getenv func(string) string) (string, error) {
	if dsn := getenv(env); dsn != "" {
		return dsn, nil
	}
	file := getenv(env + "_FILE")
	if file == "" {
		return "", fmt.Errorf("%w: %s is not set: the worker needs the database's DSN in it (or a file's name in %s_FILE)", tasks.ErrInvalid, env, env)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%w: %s_FILE: %v", tasks.ErrInvalid, env, err)
	}
	return strings.TrimSpace(string(raw)), nil
}
