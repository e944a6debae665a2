package query

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/alphanode/stoker/tasks"
)

// typing is how a column is compared with the text that a template made of its value.
type typing struct {
	// column is the format of the compared expression, of the column's name.
	column string
	// parse returns the values to compare with; nil where no value of the type prints so.
	parse func(text string) []any
}

func plainly(parse func(string) []any) typing { return typing{"%s", parse} }

// typingOf returns how to ask for a column. It refuses, with [tasks.ErrInvalid], a type whose values
// a template prints in a way that cannot be compared.
func typingOf(driver, databaseType string) (typing, error) {
	if driver == "sqlite" {
		// Its columns hold any type, whatever was declared: all that the text may be is asked for.
		switch databaseType {
		case "DATE", "DATETIME", "TIMESTAMP", "BOOLEAN", timeType: // the driver turns these into others
		default:
			return plainly(anyOfSQLite), nil
		}
	}
	kinds := kindsOf[driver]
	databaseType = strings.TrimPrefix(databaseType, "UNSIGNED ")
	if parse, ok := kinds[databaseType]; ok {
		return plainly(parse), nil
	}
	// An enumeration or another type of PostgreSQL's extensions has no name here, only a number.
	if _, err := strconv.Atoi(databaseType); driver == "postgres" && err == nil {
		return typing{"CAST(%s AS text)", utf8Text}, nil
	}
	return typing{}, fmt.Errorf("%w: its type %s cannot be compared with a key: make keys of numbers or text", tasks.ErrInvalid, databaseType)
}

var kindsOf = map[string]map[string]func(string) []any{
	"postgres": {
		"INT2": integer(16), "INT4": integer(32), "INT8": integer(64), "FLOAT4": float, "FLOAT8": float, "NUMERIC": decimal,
		"TEXT": utf8Text, "VARCHAR": utf8Text, "BPCHAR": utf8Text, "NAME": utf8Text, "BYTEA": octets,
		"BOOL": boolean, "UUID": uuid, "DATE": moment, "TIMESTAMP": moment, "TIMESTAMPTZ": moment,
	},
	"mysql": {
		"TINYINT": integer(64), "SMALLINT": integer(64), "MEDIUMINT": integer(64), "INT": integer(64), "BIGINT": bigint, "YEAR": integer(64),
		"DOUBLE": float, "DECIMAL": decimal,
		"CHAR": utf8Text, "VARCHAR": utf8Text, "TINYTEXT": utf8Text, "TEXT": utf8Text, "MEDIUMTEXT": utf8Text, "LONGTEXT": utf8Text, "ENUM": utf8Text,
		"BINARY": octets, "VARBINARY": octets, "TINYBLOB": octets, "BLOB": octets, "MEDIUMBLOB": octets, "LONGBLOB": octets,
		"DATE": moment, "DATETIME": moment, "TIMESTAMP": moment,
	},
}

// integer: PostgreSQL refuses a whole statement for one number that its type cannot hold.
func integer(bits int) func(string) []any {
	return func(text string) []any {
		n, err := strconv.ParseInt(text, 10, bits)
		return when(err == nil, n)
	}
}

// bigint may be unsigned.
func bigint(text string) []any {
	if n, err := strconv.ParseUint(text, 10, 64); err == nil && n > math.MaxInt64 {
		return []any{n}
	}
	return integer(64)(text)
}

func float(text string) []any {
	f, err := strconv.ParseFloat(text, 64)
	return when(err == nil && !math.IsNaN(f) && !math.IsInf(f, 0), f)
}

var decimals = regexp.MustCompile(`^-?[0-9]{1,100}(\.[0-9]{1,100})?$`)

func decimal(text string) []any { return when(decimals.MatchString(text), text) }

// utf8Text: a server refuses a whole statement for one text that it cannot hold.
func utf8Text(text string) []any {
	return when(utf8.ValidString(text) && !strings.Contains(text, "\x00"), text)
}

func octets(text string) []any { return []any{[]byte(text)} }

func boolean(text string) []any { return when(text == "true" || text == "false", text == "true") }

var uuids = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func uuid(text string) []any { return when(uuids.MatchString(text), text) }

func moment(text string) []any {
	t, err := time.Parse(time.RFC3339Nano, text)
	return when(err == nil, t)
}

func anyOfSQLite(text string) []any {
	all := []any{text, []byte(text)}
	if n := integer(64)(text); n != nil {
		return append(all, n...)
	}
	return append(all, float(text)...)
}

func when(ok bool, v any) []any {
	if !ok {
		return nil
	}
	return []any{v}
}
