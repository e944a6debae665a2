package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/alphanode/stoker/tasks"
)

// S3Store keeps archives as objects of one bucket, in S3 or in what speaks its protocol. An
// archive is uploaded in parts while it is written, and appears under its name when the last
// part is there, in one step.
//
// A part that a broken connection cut off is sent again, and a read goes on where it broke off.
// Parts are all of one size, which some servers insist on, so the bytes behind the last whole part
// are kept in the checkpoint of a draft. Uploads that nobody discarded are dropped after a week by the
// next writer.
type S3Store struct {
	place  place3
	client minio.Core
	part   int // bytes of a part at first
}

var _ Store = (*S3Store)(nil)

// The limits of an upload.
const (
	// firstPart is how large the parts begin. Two of them are in memory at a time.
	firstPart = 16 << 20
	// growEvery is after how many parts they become one first part longer, so that S3's
	// 10,000 parts hold half a terabyte.
	growEvery = 2000
	// requestTries is how often a request is sent before its failure counts.
	requestTries = 5
)

// String implements [Store].
func (s *S3Store) String() string { return s.place.String() }

// Create implements [Store].
func (s *S3Store) Create(ctx context.Context, name string) (Draft, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		return nil, fmt.Errorf("create archive %q: %w", name, err)
	}
	s.dropOldUploads(ctx)
	return &s3Draft{ctx: ctx, store: s, name: name}, nil
}

// s3Mark is the checkpoint of a draft.
type s3Mark struct {
	Upload string   `json:"upload"`
	Parts  []string `json:"parts"` // their ETags, in order
	Tail   []byte   `json:"tail"`  // what follows them
}

// Resume implements [Store]. Parts that were sent after the checkpoint are replaced. Two that write to one
// upload cannot both complete it: the parts of one have not the ETags that the other knows.
func (s *S3Store) Resume(ctx context.Context, name string, at json.RawMessage) (Draft, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	var m s3Mark
	if err := json.Unmarshal(at, &m); err != nil || m.Upload == "" || len(m.Parts) == 0 {
		return nil, errNoResume(name, "its checkpoint is not one of an upload")
	}
	d := &s3Draft{ctx: ctx, store: s, name: name, upload: m.Upload, last: len(m.Parts)}
	for after, more := 0, true; more && len(d.parts) < len(m.Parts); {
		page, err := s.client.ListObjectParts(ctx, s.place.bucket, s.place.key(name), m.Upload, after, 1000)
		switch minio.ToErrorResponse(err).Code {
		case minio.NoSuchUpload:
			return nil, errNoResume(name, "its upload is gone")
		case minio.AccessDenied:
			return nil, errNoResume(name, "the credentials lack s3:ListMultipartUploadParts")
		}
		if err != nil {
			return nil, fmt.Errorf("go on with archive %q: %w", name, s.explain(err))
		}
		for _, p := range page.ObjectParts[:min(len(page.ObjectParts), len(m.Parts)-len(d.parts))] {
			n := len(d.parts)
			if p.PartNumber != n+1 || strings.Trim(p.ETag, `"`) != m.Parts[n] || p.Size != int64(d.room()) {
				return nil, errNoResume(name, fmt.Sprintf("part %d of its upload is another", n+1))
			}
			d.parts = append(d.parts, minio.CompletePart{PartNumber: p.PartNumber, ETag: m.Parts[n]})
		}
		after, more = page.NextPartNumberMarker, page.IsTruncated
	}
	if len(d.parts) < len(m.Parts) {
		return nil, errNoResume(name, "parts of its upload are missing")
	}
	if len(m.Tail) >= d.room() {
		return nil, errNoResume(name, "its checkpoint was made with other parts")
	}
	_, _ = d.part.Write(m.Tail)
	return d, nil
}

// Discard implements [Store].
func (s *S3Store) Discard(ctx context.Context, name string) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing when this returns early
	key := s.place.key(name)
	for u := range s.client.ListIncompleteUploads(ctx, s.place.bucket, key, true) {
		err := u.Err
		if err == nil && u.Key == key {
			err = s.client.AbortMultipartUpload(ctx, s.place.bucket, key, u.UploadID)
		}
		if err != nil && minio.ToErrorResponse(err).Code != minio.NoSuchUpload {
			return fmt.Errorf("discard uploads of archive %q: %w", name, s.explain(err))
		}
	}
	return ctx.Err()
}

// ready finds out before the work begins whether it could end well. It lists, because the
// answer to a question about the bucket itself (HEAD) does not say what is wrong.
func (s *S3Store) ready(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	first := <-s.client.Client.ListObjects(ctx, s.place.bucket, minio.ListObjectsOptions{Prefix: s.place.prefix, MaxKeys: 1})
	if minio.ToErrorResponse(first.Err).Code == minio.AccessDenied && !s.anonymous() {
		return nil // a user that may write need not be allowed to list
	}
	return s.explain(first.Err)
}

// Open implements [Store].
func (s *S3Store) Open(ctx context.Context, name string) (Source, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	body, info, _, err := s.client.GetObject(ctx, s.place.bucket, s.place.key(name), minio.GetObjectOptions{})
	if minio.ToErrorResponse(err).Code == minio.NoSuchKey {
		return nil, fmt.Errorf("open archive: %w: %q in %s", tasks.ErrNotFound, name, s)
	}
	if err != nil {
		return nil, fmt.Errorf("open archive %q: %w", name, s.explain(err))
	}
	return &s3Source{ctx: ctx, store: s, key: s.place.key(name), etag: info.ETag, size: info.Size, body: body}, nil
}

// List implements [Store].
func (s *S3Store) List(ctx context.Context) ([]Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing when this returns early
	var out []Object
	for o := range s.client.Client.ListObjects(ctx, s.place.bucket, minio.ListObjectsOptions{Prefix: s.place.prefix}) {
		if o.Err != nil {
			return nil, fmt.Errorf("list archives: %w", s.explain(o.Err))
		}
		name := strings.TrimPrefix(o.Key, s.place.prefix)
		if ValidateName(name) == nil { // another's object, or a folder
			out = append(out, Object{Name: name, Size: o.Size, Modified: o.LastModified})
		}
	}
	slices.SortFunc(out, func(a, b Object) int { return strings.Compare(a.Name, b.Name) })
	return out, ctx.Err()
}

// Delete implements [Store].
func (s *S3Store) Delete(ctx context.Context, name string) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	err := s.client.RemoveObject(ctx, s.place.bucket, s.place.key(name), minio.RemoveObjectOptions{})
	if err != nil && minio.ToErrorResponse(err).Code != minio.NoSuchKey {
		return fmt.Errorf("delete archive %q: %w", name, s.explain(err))
	}
	return nil
}

// dropOldUploads removes what killed writers left. It is housekeeping: errors wait for next time.
func (s *S3Store) dropOldUploads(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, tidyLimit)
	defer cancel()
	for u := range s.client.ListIncompleteUploads(ctx, s.place.bucket, s.place.prefix, true) {
		if u.Err == nil && time.Since(u.Initiated) > draftAge && ValidateName(strings.TrimPrefix(u.Key, s.place.prefix)) == nil {
			_ = s.client.AbortMultipartUpload(ctx, s.place.bucket, u.Key, u.UploadID)
		}
	}
}

// s3Source reads one object: on end by a request that lasts, and anywhere by one of its own.
type s3Source struct {
	ctx   context.Context
	store *S3Store
	key   string
	etag  string // of the object that was opened: another under its name is not read on from
	size  int64
	at    int64 // where body is
	body  io.ReadCloser
	fails int // since bytes came last
}

var _ Source = (*s3Source)(nil)

// Size implements [Source].
func (r *s3Source) Size() int64 { return r.size }

// Close implements [Source].
func (r *s3Source) Close() error {
	if r.body == nil {
		return nil
	}
	return r.body.Close()
}

// Read implements [Source]. A connection that breaks is made again, from where it broke.
func (r *s3Source) Read(b []byte) (int, error) {
	for {
		if r.at >= r.size {
			return 0, io.EOF
		}
		var n int
		var err error
		if r.body == nil {
			r.body, err = r.from(r.ctx, r.at, r.size-1)
		}
		if err == nil {
			n, err = r.body.Read(b)
			r.at += int64(n)
		}
		if n > 0 || err == nil {
			r.fails = 0
			return n, nil // an error that came with bytes comes again
		}
		r.fails++
		if r.ctx.Err() != nil || r.fails >= requestTries || minio.ToErrorResponse(err).StatusCode >= 400 {
			return 0, fmt.Errorf("read archive from %s: %w", r.store, r.store.explain(err))
		}
		if r.body != nil {
			_ = r.body.Close()
			r.body = nil
		}
	}
}

// ReadAt implements [Source], by one request a call.
func (r *s3Source) ReadAt(b []byte, off int64) (int, error) {
	if off >= r.size {
		return 0, io.EOF
	}
	body, err := r.from(r.ctx, off, min(off+int64(len(b)), r.size)-1)
	if err != nil {
		return 0, fmt.Errorf("read archive from %s: %w", r.store, r.store.explain(err))
	}
	defer func() { _ = body.Close() }()
	n, err := io.ReadFull(body, b)
	if errors.Is(err, io.ErrUnexpectedEOF) && off+int64(n) == r.size {
		err = io.EOF
	}
	return n, err
}

// from opens the bytes [first, last] of the very object that was opened.
func (r *s3Source) from(ctx context.Context, first, last int64) (io.ReadCloser, error) {
	var o minio.GetObjectOptions
	if err := errors.Join(o.SetRange(first, last), o.SetMatchETag(r.etag)); err != nil {
		return nil, err
	}
	body, _, _, err := r.store.client.GetObject(ctx, r.store.place.bucket, r.key, o)
	return body, err
}
