// Package filltest holds a port of [tasks.Client.Fetch] to its contract, deploy/fill.md, whatever
// language the port is written in. From the repository's root:
//
//	go test ./tasks/filltest -run TestPort -v -port 'python3 deploy/fill/python/conform.py'
//
// The port is a process that fetches what it is told to over its standard input and output, one JSON
// object a line, and asks the suite for the value on a miss. It reaches its two Redises through
// proxies of the suite, which hold single commands back, so that the suite can invalidate, take
// over, or look at what a crash would leave, between any two steps of a fill.
package filltest
