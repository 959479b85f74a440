// An app that can be drained: go run ., then curl localhost:9808/drain.
package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/coder/websocket"

	"graceful.dev/samples/go/drain"
)

// echo sends back what comes, until the client leaves or the pod does.
func echo(socket *websocket.Conn, farewell <-chan struct{}, closed func()) {
	defer closed()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			kind, message, err := socket.Read(context.Background())
			if err != nil || socket.Write(context.Background(), kind, message) != nil {
				return
			}
		}
	}()
	select {
	case <-gone:
		_ = socket.CloseNow()
	case <-farewell:
		_ = socket.Close(websocket.StatusServiceRestart, "service restart")
	}
}

func main() {
	linger, err := time.ParseDuration(cmp.Or(os.Getenv("LINGER"), "3s"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "LINGER must be a duration such as 3s:", err)
		os.Exit(2)
	}
	d := drain.New(drain.Settings{Linger: linger, Open: []string{"/health"}})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		// Read first: net/http stops reading a body once its answer has begun.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = w.Write(body)
	})
	mux.HandleFunc("POST /tasks", func(w http.ResponseWriter, r *http.Request) {
		takes, err := time.ParseDuration(cmp.Or(r.URL.Query().Get("takes"), "10s"))
		if err != nil {
			http.Error(w, "takes must be a duration such as 10s", http.StatusUnprocessableEntity)
			return
		}
		end := d.Task() // counted before the request is counted out
		go func() {
			defer end()
			time.Sleep(takes)
		}()
		fmt.Fprintln(w, "queued")
	})
	mux.HandleFunc("GET /stream", func(w http.ResponseWriter, r *http.Request) {
		for n := range 10 {
			fmt.Fprintln(w, n)
			_ = http.NewResponseController(w).Flush()
			time.Sleep(100 * time.Millisecond)
		}
	})
	mux.HandleFunc("GET /fail", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	mux.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) {
		socket, err := websocket.Accept(w, r, nil)
		if err != nil {
			return // it has been answered
		}
		farewell, closed := d.Connect()
		go echo(socket, farewell, closed) // the request ends here: the socket is a connection from now on
	})
	public := &http.Server{Addr: cmp.Or(os.Getenv("ADDRESS"), ":8000"), Handler: mux, ReadHeaderTimeout: 75 * time.Second}
	os.Exit(d.Serve(public, cmp.Or(os.Getenv("ADMIN_ADDRESS"), ":9808")))
}
