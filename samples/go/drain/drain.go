// Package drain is the drain protocol (docs/protocol.md) for net/http, with nothing but the standard library. Copy the folder.
//
//	d := drain.New(drain.Settings{Linger: 3 * time.Second, Open: []string{"/health"}})
//	os.Exit(d.Serve(&http.Server{Addr: ":8000", Handler: mux}, ":9808"))
//
// A request is in flight until its handler has returned. Work that outlives its request is begun with Task; whatever holds a connection of its own (a
// WebSocket) says so with Connect.
package drain

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Settings of a pod.
type Settings struct {
	Linger time.Duration // how long a SIGTERM that nobody announced leaves the door open, while endpoints propagate
	Open   []string      // paths of reads and health checks: answered in every state, and not counted
}

const (
	keepAliveTail  = 500 * time.Millisecond // before the latch, at which idle connections are closed
	farewellSpread = time.Second            // over which connections are told, so that their clients do not all come back at once
	closeHandshake = 2 * time.Second        // for what they do then
)

// Drain is what is in flight in this process, and whether more may come: the latch and the counts are under one lock.
type Drain struct {
	settings     Settings
	podUID, boot string
	keys         *keys // nil: nothing is verified

	mutex       sync.Mutex
	changed     chan struct{} // closed, and made anew, with each change
	epoch       uint64
	resumed     bool
	latchAt     time.Time // when the latch closes or has closed; zero: no end is in sight
	terminating bool
	ended       bool
	requests    map[uint64]time.Time
	running     map[uint64]time.Time
	connections map[uint64]chan struct{}
	next        uint64
	public      *http.Server
}

// New reads GRACEFUL_POD_UID and GRACEFUL_DRAIN_KEYS, as the operator sets them.
func New(settings Settings) *Drain {
	return &Drain{
		settings: settings, podUID: os.Getenv("GRACEFUL_POD_UID"), boot: rand.Text(), keys: keysFromEnvironment(), resumed: true,
		changed: make(chan struct{}), requests: map[uint64]time.Time{}, running: map[uint64]time.Time{}, connections: map[uint64]chan struct{}{},
	}
}

// The methods whose names are small are called with the lock held.

func (d *Drain) accepting() bool { return d.latchAt.IsZero() || time.Now().Before(d.latchAt) }
func (d *Drain) total() int      { return len(d.requests) + len(d.running) }

func (d *Drain) change() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// count is called where the work is let in already.
func (d *Drain) count(kind map[uint64]time.Time) (end func()) {
	d.next++
	ticket := d.next
	kind[ticket] = time.Now()
	d.change()
	return func() {
		d.mutex.Lock()
		defer d.mutex.Unlock()
		delete(kind, ticket)
		d.change()
	}
}

// Task counts work that outlives its request: call it before the request is answered, and `end` (by defer) once all of the work is done.
func (d *Drain) Task() (end func()) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.count(d.running)
}

// Connect counts a connection that has left HTTP, such as a WebSocket. It holds no drain up. Once `farewell` is closed, say goodbye, close it with 1012
// (service restart), and call `closed`.
func (d *Drain) Connect() (farewell <-chan struct{}, closed func()) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.next++
	ticket, told := d.next, make(chan struct{})
	d.connections[ticket] = told
	d.change()
	return told, func() {
		d.mutex.Lock()
		defer d.mutex.Unlock()
		delete(d.connections, ticket)
		d.change()
	}
}

// admit looks at the latch and counts under one lock: between the two there is no gap.
func (d *Drain) admit() (end func(), closing, open bool) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	closing = !d.latchAt.IsZero()
	if !d.accepting() {
		return nil, closing, false
	}
	return d.count(d.requests), closing, true
}

// Gate counts each request until its handler has returned, and refuses all past the latch.
func (d *Drain) Gate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if slices.Contains(d.settings.Open, r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		end, closing, open := d.admit()
		if closing && r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close")
		}
		if !open {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "draining: no new work is accepted", http.StatusServiceUnavailable)
			return
		}
		defer end() // on a panic as well
		next.ServeHTTP(w, r)
	})
}

// close begins a drain, or makes its linger longer (a newer epoch) or shorter (SIGTERM).
func (d *Drain) close(linger time.Duration) {
	at := time.Now().Add(linger)
	switch {
	case d.latchAt.IsZero():
		d.latchAt = at
	case d.accepting() && at.After(d.latchAt) != d.terminating:
		d.latchAt = at
	}
	time.AfterFunc(max(linger-keepAliveTail, 0), func() {
		d.mutex.Lock()
		defer d.mutex.Unlock()
		if !d.latchAt.IsZero() && d.public != nil {
			d.public.SetKeepAlivesEnabled(false) // which closes those that are idle
		}
	})
	d.change()
}

func (d *Drain) drain(epoch uint64, linger time.Duration) *problem {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if epoch == d.epoch && !d.resumed {
		return nil
	}
	if epoch <= d.epoch {
		return d.stale(epoch)
	}
	d.epoch, d.resumed = epoch, false
	d.close(linger)
	return nil
}

func (d *Drain) resume(epoch uint64) *problem {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	switch {
	case d.terminating:
		return &problem{Status: http.StatusConflict, Detail: "SIGTERM has come, which cannot be undone"}
	case epoch == d.epoch && d.resumed:
		return nil
	case epoch <= d.epoch:
		return d.stale(epoch)
	}
	d.epoch, d.resumed, d.latchAt = epoch, true, time.Time{}
	if d.public != nil {
		d.public.SetKeepAlivesEnabled(true)
	}
	d.change()
	return nil
}

func (d *Drain) stale(epoch uint64) *problem {
	detail := fmt.Sprintf("epoch %d is at or below %d, the highest seen; use a higher one", epoch, d.epoch)
	return &problem{Status: http.StatusConflict, Detail: detail, Field: "epoch"}
}

// until waits for what is wanted, which is asked with the lock held.
func (d *Drain) until(context context.Context, wanted func() bool) {
	for {
		d.mutex.Lock()
		if wanted() {
			d.mutex.Unlock()
			return
		}
		changed, latch := d.changed, (<-chan time.Time)(nil)
		if !d.latchAt.IsZero() && d.accepting() {
			latch = time.After(time.Until(d.latchAt))
		}
		d.mutex.Unlock()
		select {
		case <-changed:
		case <-latch:
		case <-context.Done():
			return
		}
	}
}

func (d *Drain) terminate(linger time.Duration) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.terminating = true
	d.close(linger)
}

// Serve gates the server's handler, serves it and /drain until a signal has drained the process, and returns the exit code.
func (d *Drain) Serve(public *http.Server, adminAddress string) int {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	public.Handler, d.public = d.Gate(public.Handler), public
	admin := &http.Server{Addr: adminAddress, Handler: d, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 2)
	for _, server := range []*http.Server{public, admin} {
		listener, err := net.Listen("tcp", server.Addr)
		if err != nil {
			log.Print(err)
			return 1
		}
		go func() { failed <- server.Serve(listener) }()
	}
	select {
	case err := <-failed:
		log.Print(err)
		return 1
	case first := <-signals:
		d.terminate(map[bool]time.Duration{true: d.settings.Linger}[first == syscall.SIGTERM])
	}
	orderly := make(chan struct{})
	go func() {
		defer close(orderly)
		d.until(context.Background(), func() bool { return !d.accepting() && d.total() == 0 })
		d.leave(public, admin)
	}()
	for {
		select {
		case <-orderly:
			return 0
		case again := <-signals: // in a pod a second SIGTERM changes nothing: containerd repeats it after a restart of its own
			if number, ok := again.(syscall.Signal); ok && (number != syscall.SIGTERM || d.podUID == "") {
				return 128 + int(number)
			}
		}
	}
}

// leave tells the connections that have left HTTP, closes the app's side in order, and /drain last.
func (d *Drain) leave(public, admin *http.Server) {
	d.mutex.Lock()
	for _, told := range d.connections {
		time.AfterFunc(mathrand.N(farewellSpread), func() { close(told) })
	}
	d.mutex.Unlock()
	bounded, cancel := context.WithTimeout(context.Background(), farewellSpread+closeHandshake)
	defer cancel()
	d.until(bounded, func() bool { return len(d.connections) == 0 })
	_ = public.Shutdown(bounded)
	d.mutex.Lock()
	d.ended = true // those who poll are answered
	d.change()
	d.mutex.Unlock()
	_ = admin.Shutdown(bounded)
}

func (d *Drain) state() string {
	switch {
	case d.terminating:
		return "Terminating"
	case d.latchAt.IsZero():
		return "Serving"
	case d.accepting():
		return "Lingering"
	case d.total() == 0:
		return "Idle"
	}
	return "Draining"
}

func tag(text string) string { return strings.TrimPrefix(strings.TrimSpace(text), "W/") }
