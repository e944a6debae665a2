package health

import (
	"net/http"
	"strconv"
	"strings"
)

// dbCalls returns how many database calls a response owns up to in its Server-Timing header
// (https://www.w3.org/TR/server-timing/), false when it says nothing about them. The metric is the
// configured one, or it with "-calls" behind; the count is its parameter "count" or the
// number that its description begins with:
//
//	Server-Timing: db;desc="3 calls";dur=1.2
//	Server-Timing: db;count=3, render;dur=8
//	Server-Timing: db-calls;desc=3
//
// Several metrics of that name add up. Names are compared without regard to case.
func dbCalls(h http.Header, metric string) (int, bool) {
	total, found := 0, false
	for _, line := range h.Values("Server-Timing") {
		for _, m := range splitQuoted(line, ',') {
			if n, ok := callsOf(m, metric); ok {
				total, found = total+n, true
			}
		}
	}
	return total, found
}

// callsOf reads one metric of the header: name *( ";" parameter "=" value ).
func callsOf(text, metric string) (int, bool) {
	parts := splitQuoted(text, ';')
	name := strings.TrimSpace(parts[0])
	if !strings.EqualFold(name, metric) && !strings.EqualFold(name, metric+"-calls") {
		return 0, false
	}
	for _, p := range parts[1:] {
		param, value, _ := strings.Cut(p, "=")
		switch strings.ToLower(strings.TrimSpace(param)) {
		case "desc", "count":
			if n, ok := leadingNumber(unquote(strings.TrimSpace(value))); ok {
				return n, true
			}
		}
	}
	return 0, false
}

// splitQuoted splits s at sep, except inside quoted strings, where a backslash escapes.
func splitQuoted(s string, sep byte) []string {
	var parts []string
	start, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == sep && !quoted:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

// unquote returns the text of a quoted string, and any other value as it is.
func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	var b strings.Builder
	for i := 1; i < len(s)-1; i++ {
		if s[i] == '\\' && i+1 < len(s)-1 {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// leadingNumber reads the digits that s begins with.
func leadingNumber(s string) (int, bool) {
	end := 0
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	n, err := strconv.Atoi(s[:end])
	return n, err == nil
}
