package drain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	epochLimit  = 1 << 53
	longestWait = 300  // seconds that a poll is held
	longest     = 3600 // seconds of a linger
	bodyLimit   = 4096 // bytes
)

// problem is a refusal (RFC 9457).
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Field  string `json:"field,omitempty"`
}

func (p *problem) write(w http.ResponseWriter) {
	p.Title = http.StatusText(p.Status)
	w.Header().Set("Content-Type", "application/problem+json")
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="drain"`)
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

type inFlight struct {
	Total    int `json:"total"`
	Queued   int `json:"queued"`
	Running  int `json:"running"`
	Requests int `json:"requests"`
}

type status struct {
	Protocol      string   `json:"protocol"`
	PodUID        string   `json:"podUid"`
	BootID        string   `json:"bootId"`
	State         string   `json:"state"`
	Accepting     bool     `json:"accepting"`
	Epoch         uint64   `json:"epoch"`
	InFlight      inFlight `json:"inFlight"`
	Connections   int      `json:"connections"`
	OldestSeconds int      `json:"oldestSeconds"`
	Resumable     bool     `json:"resumable"`
	Verifies      bool     `json:"verifies,omitempty"`
}

func (d *Drain) statusNow() (status, string) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.status()
}

// status and its tag, which covers what decides something; called with the lock held.
func (d *Drain) status() (status, string) {
	oldest := time.Now()
	for _, kind := range []map[uint64]time.Time{d.requests, d.running} {
		for _, since := range kind {
			if since.Before(oldest) {
				oldest = since
			}
		}
	}
	counts := inFlight{Total: d.total(), Running: len(d.running), Requests: len(d.requests)}
	s := status{
		Protocol: "v1", PodUID: d.podUID, BootID: d.boot, State: d.state(), Accepting: d.accepting(), Epoch: d.epoch, InFlight: counts,
		Connections: len(d.connections), OldestSeconds: int(time.Since(oldest).Seconds()), Resumable: !d.terminating, Verifies: d.keys != nil,
	}
	return s, fmt.Sprintf(`W/"%s.%s.%t.%d.%d.%d"`, s.BootID, s.State, s.Accepting, s.Epoch, counts.Running, counts.Requests)
}

// ServeHTTP is /drain.
func (d *Drain) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/drain" {
		http.NotFound(w, r)
		return
	}
	code, refused := http.StatusOK, (*problem)(nil)
	switch r.Method {
	case http.MethodGet:
		code = d.poll(w, r)
	case http.MethodPut:
		code, refused = http.StatusAccepted, d.put(w, r)
	case http.MethodDelete:
		refused = d.delete(r)
	default:
		refused = &problem{Status: http.StatusMethodNotAllowed, Detail: "GET, PUT or DELETE"}
	}
	if refused != nil {
		refused.write(w)
		return
	}
	body, etag := d.statusNow()
	w.Header().Set("ETag", etag)
	w.Header().Set("Cache-Control", "no-store")
	if code == http.StatusNotModified {
		w.WriteHeader(code)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

// poll holds a question whose tag is known until it is no more, for as long as it prefers.
func (d *Drain) poll(w http.ResponseWriter, r *http.Request) int {
	tags := strings.Split(strings.Join(r.Header.Values("If-None-Match"), ","), ",")
	known := func(etag string) bool {
		return slices.ContainsFunc(tags, func(one string) bool { return tag(one) == tag(etag) })
	}
	name, value, _ := strings.Cut(r.Header.Get("Prefer"), "=")
	seconds, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
	_, etag := d.statusNow()
	if known(etag) && err == nil && strings.EqualFold(strings.TrimSpace(name), "wait") {
		seconds = min(seconds, longestWait)
		held, cancel := context.WithTimeout(r.Context(), time.Duration(seconds)*time.Second)
		defer cancel()
		d.until(held, func() bool {
			_, etag = d.status()
			return d.ended || !known(etag)
		})
		w.Header().Set("Preference-Applied", fmt.Sprintf("wait=%d", seconds))
	}
	if known(etag) {
		return http.StatusNotModified
	}
	return http.StatusOK
}

func (d *Drain) put(w http.ResponseWriter, r *http.Request) *problem {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimit))
	if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
		return &problem{Status: http.StatusRequestEntityTooLarge, Detail: fmt.Sprintf("over %d bytes", bodyLimit)}
	}
	body := map[string]json.RawMessage{}
	if err != nil || !json.Valid(text) {
		return &problem{Status: http.StatusBadRequest, Detail: `the body is not JSON; send {"epoch": 7, "lingerSeconds": 3}`}
	}
	if json.Unmarshal(text, &body) != nil {
		return &problem{Status: http.StatusUnprocessableEntity, Detail: `the body is no object; send {"epoch": 7, "lingerSeconds": 3}`}
	}
	epoch, refused := wholeNumber(string(body["epoch"]), "epoch", 1, epochLimit-1)
	if refused != nil {
		return refused
	}
	linger := d.settings.Linger
	if given, ok := body["lingerSeconds"]; ok {
		seconds, refused := wholeNumber(string(given), "lingerSeconds", 0, longest)
		if refused != nil {
			return refused
		}
		linger = time.Duration(seconds) * time.Second
	}
	if refused := d.allow(r, "drain", epoch); refused != nil {
		return refused
	}
	return d.drain(epoch, linger)
}

func (d *Drain) delete(r *http.Request) *problem {
	epoch, refused := wholeNumber(r.URL.Query().Get("epoch"), "epoch", 1, epochLimit-1)
	if refused == nil {
		refused = d.allow(r, "resume", epoch)
	}
	if refused == nil {
		refused = d.resume(epoch)
	}
	return refused
}

// wholeNumber reads digits alone: 1e3 and 7.0 are none.
func wholeNumber(text, field string, least, most uint64) (uint64, *problem) {
	number, err := strconv.ParseUint(text, 10, 64)
	if err != nil || number < least || number > most {
		detail := fmt.Sprintf("%s must be a whole number from %d to %d", field, least, most)
		return 0, &problem{Status: http.StatusUnprocessableEntity, Detail: detail, Field: field}
	}
	return number, nil
}

// allow: over loopback no token is needed; one that is given is looked at wherever it comes from.
func (d *Drain) allow(r *http.Request, action string, epoch uint64) *problem {
	if d.keys == nil {
		return nil
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	field := ""
	switch {
	case strings.EqualFold(scheme, "bearer"):
		expected := claims{Issuer: "graceful-operator", Subject: d.podUID, Boot: d.boot, Action: action, Epoch: epoch}
		if field = d.keys.wrong(strings.TrimSpace(token), expected, time.Now()); field == "" {
			return nil
		}
	case net.ParseIP(host).IsLoopback():
		return nil
	}
	detail := "a token of the operator is needed, for this alone (docs/protocol.md); at fault: " + field
	if field == "token" {
		field = ""
	}
	return &problem{Status: http.StatusUnauthorized, Detail: detail, Field: field}
}
