// Where a service is to be found: registry ENDPOINTS SERVICE [NAME ADDRESS]
//
// With a name: registers an instance for as long as this runs, prints `registered NAME ADDRESS`, and takes it back when Enter is
// pressed (`deregistered`). Without: prints `+ NAME ADDRESS` and `- NAME`, first for all that are there, then as they come and go.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
)

// Seconds until an instance that died without a word is forgotten.
const ttl = 15

// register registers, and renews the lease until it is lost (then the caller begins anew) or Enter is pressed. Answers whether it
// was.
func register(client *clientv3.Client, service, name, address string, enter <-chan struct{}) (bool, error) {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(ttl))
	if err != nil {
		return false, err
	}
	manager, err := endpoints.NewManager(client, service)
	if err != nil {
		return false, err
	}
	endpoint := endpoints.Endpoint{Addr: address}
	err = manager.AddEndpoint(context.Background(), service+"/"+name, endpoint, clientv3.WithLease(session.Lease()))
	if err != nil {
		// Renewed for ever otherwise.
		_ = session.Close()
		return false, err
	}
	fmt.Println("registered", name, address)
	select {
	case <-session.Done():
		return false, nil
	case <-enter:
		// The lease's end deletes the key, and nothing can put it back: a put with a lease that is gone is refused.
		return true, session.Close()
	}
}

func stayRegistered(client *clientv3.Client, service, name, address string) {
	enter := make(chan struct{})
	go func() {
		// Enter, or the end of the input.
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		close(enter)
	}()
	for {
		done, err := register(client, service, name, address, enter)
		if done && err == nil {
			fmt.Println("deregistered")
			return
		}
		// Registering puts the same value at the same key: doing it again, after whatever error, does no harm. A lease that an
		// answer was lost for runs out by itself.
		if err == nil {
			err = errors.New("the lease ran out")
		}
		log.Printf("%v; registering again", err)
		time.Sleep(time.Second)
	}
}

// watcher reads all, follows from there, and reads again where history was compacted, as in config_watch. (The manager's own
// NewWatchChannel is shorter. But it ends at a compaction, and does not say what went meanwhile.)
type watcher struct {
	client *clientv3.Client
	prefix string
	// What was printed last.
	known map[string]string
	// The first revision that is not seen yet; 0: all has to be read.
	next int64
}

// note notes a key: without a value, or with one that is no endpoint's, it is none.
func (w *watcher) note(kv *mvccpb.KeyValue) {
	name := strings.TrimPrefix(string(kv.Key), w.prefix)
	var endpoint endpoints.Endpoint
	if err := json.Unmarshal(kv.Value, &endpoint); err != nil || endpoint.Addr == "" {
		w.forget(name)
	} else if w.known[name] != endpoint.Addr {
		w.known[name] = endpoint.Addr
		fmt.Println("+", name, endpoint.Addr)
	}
}

func (w *watcher) forget(name string) {
	if _, ok := w.known[name]; ok {
		delete(w.known, name)
		fmt.Println("-", name)
	}
}

func (w *watcher) read(ctx context.Context) error {
	response, err := w.client.Get(ctx, w.prefix, clientv3.WithPrefix())
	if err != nil {
		return err
	}
	found := make(map[string]bool)
	for _, kv := range response.Kvs {
		found[strings.TrimPrefix(string(kv.Key), w.prefix)] = true
	}
	for name := range w.known {
		if !found[name] {
			w.forget(name)
		}
	}
	for _, kv := range response.Kvs {
		w.note(kv)
	}
	w.next = response.Header.Revision + 1
	return nil
}

func (w *watcher) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	if w.next == 0 {
		if err := w.read(ctx); err != nil {
			return err
		}
	}
	for response := range w.client.Watch(ctx, w.prefix, clientv3.WithPrefix(), clientv3.WithRev(w.next), clientv3.WithProgressNotify()) {
		if response.CompactRevision != 0 {
			w.next = 0
			return nil
		}
		if err := response.Err(); err != nil {
			return err
		}
		for _, event := range response.Events {
			w.note(event.Kv)
			w.next = event.Kv.ModRevision + 1
		}
		if response.IsProgressNotify() {
			w.next = response.Header.Revision + 1
		}
	}
	return nil
}

func main() {
	if len(os.Args) != 3 && len(os.Args) != 5 {
		log.Fatal("usage: registry ENDPOINTS SERVICE [NAME ADDRESS]")
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(os.Args[1], ",")})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if len(os.Args) == 5 {
		stayRegistered(client, os.Args[2], os.Args[3], os.Args[4])
		return
	}
	w := &watcher{client: client, prefix: os.Args[2] + "/", known: make(map[string]string)}
	for {
		if err := w.follow(context.Background()); err != nil {
			log.Printf("%v; watching again", err)
			time.Sleep(time.Second)
		}
	}
}
