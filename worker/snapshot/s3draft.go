package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
)

// tidyLimit bounds what is done to leave nothing behind.
const tidyLimit = 30 * time.Second

// s3Draft uploads an archive in parts: one is filled while the one before is under way.
type s3Draft struct {
	ctx   context.Context
	store *S3Store
	name  string

	part   bytes.Buffer // being filled
	spare  bytes.Buffer // under way
	upload string       // ID, "" before the first full part
	parts  []minio.CompletePart
	sent   chan error // the outcome of the part under way; nil without one
	last   int        // parts at the last checkpoint
	done   bool
}

var _ Draft = (*s3Draft)(nil)

// Write implements [Draft].
func (d *s3Draft) Write(b []byte) (int, error) {
	if d.done {
		return 0, fmt.Errorf("write archive %q: %w", d.name, os.ErrClosed)
	}
	written := 0
	for len(b) > 0 {
		room := d.room() - d.part.Len()
		n, _ := d.part.Write(b[:min(room, len(b))])
		b, written = b[n:], written+n
		if d.part.Len() < d.room() {
			continue
		}
		if err := d.send(); err != nil {
			return written, err
		}
	}
	return written, nil
}

// room is the size of the part being filled.
func (d *s3Draft) room() int { return d.store.part * (1 + len(d.parts)/growEvery) }

// send begins to upload the part that was filled, when the one before is there.
func (d *s3Draft) send() error {
	if err := d.settle(); err != nil {
		return err
	}
	if d.upload == "" {
		var err error
		d.upload, err = d.store.client.NewMultipartUpload(d.ctx, d.store.place.bucket, d.store.place.key(d.name), d.options())
		if err != nil {
			return fmt.Errorf("begin to upload archive %q: %w", d.name, d.store.explain(err))
		}
	}
	d.part, d.spare = d.spare, d.part
	d.part.Reset()
	d.sent = make(chan error, 1)
	d.parts = append(d.parts, minio.CompletePart{PartNumber: len(d.parts) + 1})
	go func(last *minio.CompletePart, body *bytes.Reader) {
		p, err := d.store.client.PutObjectPart(d.ctx, d.store.place.bucket, d.store.place.key(d.name), d.upload,
			last.PartNumber, body, body.Size(), minio.PutObjectPartOptions{})
		last.ETag = p.ETag
		d.sent <- err
	}(&d.parts[len(d.parts)-1], bytes.NewReader(d.spare.Bytes()))
	return nil
}

// settle waits for the part under way.
func (d *s3Draft) settle() error {
	if d.sent == nil {
		return nil
	}
	err := <-d.sent
	d.sent = nil
	if err != nil {
		return fmt.Errorf("upload part %d of archive %q: %w", len(d.parts), d.name, d.store.explain(err))
	}
	return nil
}

func (d *s3Draft) options() minio.PutObjectOptions {
	return minio.PutObjectOptions{ContentType: "application/octet-stream"}
}

// Commit implements [Draft].
func (d *s3Draft) Commit() error {
	if d.done {
		return fmt.Errorf("commit archive %q: %w", d.name, os.ErrClosed)
	}
	if err := d.publish(); err != nil {
		return err
	}
	d.done = true
	return nil
}

func (d *s3Draft) publish() error {
	bucket, key := d.store.place.bucket, d.store.place.key(d.name)
	if d.upload == "" {
		_, err := d.store.client.PutObject(d.ctx, bucket, key, bytes.NewReader(d.part.Bytes()), int64(d.part.Len()), "", "", d.options())
		if err != nil {
			return fmt.Errorf("upload archive %q: %w", d.name, d.store.explain(err))
		}
		return nil
	}
	if d.part.Len() > 0 {
		if err := d.send(); err != nil {
			return err
		}
	}
	if err := d.settle(); err != nil {
		return err
	}
	if _, err := d.store.client.CompleteMultipartUpload(d.ctx, bucket, key, d.upload, d.parts, d.options()); err != nil {
		return fmt.Errorf("complete archive %q: %w", d.name, d.store.explain(err))
	}
	return nil
}

// maxTail is how many bytes behind the last part a checkpoint holds at most.
const maxTail = 2 << 20

// Due implements [Draft]: when a part has just been filled, so that little of the next must be kept.
func (d *s3Draft) Due() bool {
	size := func(parts int) int64 { return int64(parts) * int64(d.store.part) } // that parts grow does not matter here
	return d.part.Len() <= maxTail/2 && worth(size(len(d.parts)), size(d.last))
}

// Checkpoint implements [Draft].
func (d *s3Draft) Checkpoint() (json.RawMessage, error) {
	if len(d.parts) == 0 || d.part.Len() > maxTail {
		return nil, nil
	}
	if err := d.settle(); err != nil {
		return nil, err
	}
	d.last = len(d.parts)
	m := s3Mark{Upload: d.upload, Tail: d.part.Bytes()}
	for _, p := range d.parts {
		m.Parts = append(m.Parts, strings.Trim(p.ETag, `"`))
	}
	return json.Marshal(m)
}

// Leave implements [Draft].
func (d *s3Draft) Leave() error {
	if d.done {
		return nil
	}
	d.done = true
	_ = d.settle() // a part that failed is behind the last checkpoint
	return nil
}

// Abort implements [Draft].
func (d *s3Draft) Abort() error {
	if d.done {
		return nil
	}
	d.done = true
	_ = d.settle() // its part goes with the others
	if d.upload == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.ctx), tidyLimit)
	defer cancel()
	err := d.store.client.AbortMultipartUpload(ctx, d.store.place.bucket, d.store.place.key(d.name), d.upload)
	if err != nil && minio.ToErrorResponse(err).Code != minio.NoSuchUpload {
		return fmt.Errorf("drop the upload of archive %q: %w", d.name, d.store.explain(err))
	}
	return nil
}
