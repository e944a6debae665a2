package source

// Kind says why an item does not count as warm.
type Kind string

// The kinds of failures. An answer of the first seven is never counted as stored, and what it left
// behind is removed.
const (
	WrongRelease Kind = "wrong_release" // a header did not say what the plan expects of the release
	WrongStatus  Kind = "status"        // another status than the expected one
	Redirected   Kind = "redirect"
	SetsCookie   Kind = "set_cookie"
	NoStore      Kind = "no_store" // Cache-Control: no-store or private
	Empty        Kind = "empty"
	TooLarge     Kind = "too_large"

	NoAnswer   Kind = "no_answer"  // the connection or the request failed, or took too long
	Away       Kind = "away"       // it was not asked: the origin answered nothing but errors for long
	Foreign    Kind = "foreign"    // an address of a host that the plan does not allow
	Missing    Kind = "missing"    // the page answered, but its entry is not in the namespace
	Unreadable Kind = "unreadable" // anything else: the item has no key, no value, no address
)

// Kinds returns all kinds.
func Kinds() []Kind {
	return []Kind{WrongRelease, WrongStatus, Redirected, SetsCookie, NoStore, Empty, TooLarge, NoAnswer, Away, Foreign, Missing, Unreadable}
}

// Words says what a kind means to people.
func (k Kind) Words() string {
	if words, ok := kindWords[k]; ok {
		return words
	}
	return string(k)
}

var kindWords = map[Kind]string{
	WrongRelease: "wrong release", WrongStatus: "wrong status", Redirected: "redirect", SetsCookie: "Set-Cookie",
	NoStore: "no-store or private", Empty: "empty", TooLarge: "too large", NoAnswer: "no answer", Away: "origin away",
	Foreign: "foreign host", Missing: "not in the namespace", Unreadable: "unreadable",
}
