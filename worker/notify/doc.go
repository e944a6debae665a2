// Package notify tells people of events by a webhook: the task notify:send, in a lane of its own, so
// that a receiver that hangs delays nothing else.
//
// # What is sent
//
// One POST a message, in the form that the receiver wants ([Formats]). Where STOKER_WEBHOOK_SECRET
// is set it is signed as the Standard Webhooks specification says
// (https://www.standardwebhooks.com): the headers webhook-id, webhook-timestamp (Unix seconds) and
// webhook-signature, "v1," and the base64 of HMAC-SHA256 over "<id>.<timestamp>.<body>". The ID is
// the task's: a receiver that has seen it may drop the message.
//
// # What happens on failure
//
// 2xx is success. An answer that another try may better (408, 425, 429, 5xx, none) is tried again
// after growing pauses for about half an hour; any other is not. Redirects are not followed: where
// messages go is decided by who sets the address.
//
// # Secrets
//
// The address, whose path is a secret with most chat systems, and the signing secret are settings
// of the worker. No task, log line or error holds either.
//
// # Not promised
//
// Order, and exactly once: a message whose answer was lost is sent again under the same ID.
package notify
