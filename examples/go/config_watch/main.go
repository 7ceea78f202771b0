// Configuration that is followed while it changes: config_watch ENDPOINTS PREFIX
//
// Prints `set KEY VALUE` and `deleted KEY`, first for what is there, then for every change, and `read at revision N` when all
// was read. Runs until it is ended.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// follower is the configuration under a prefix, as far as it is known here.
type follower struct {
	client *clientv3.Client
	prefix string
	// What was printed last.
	known map[string]string
	// The first revision that is not seen yet; 0: all has to be read.
	next int64
}

func (f *follower) set(key, value string) {
	f.known[key] = value
	fmt.Println("set", key, value)
}

func (f *follower) delete(key string) {
	delete(f.known, key)
	fmt.Println("deleted", key)
}

// read reads all, and prints what differs from what is known. This is right the first time as well as later: what happened in
// between shows in the difference.
func (f *follower) read(ctx context.Context) error {
	response, err := f.client.Get(ctx, f.prefix, clientv3.WithPrefix())
	if err != nil {
		return err
	}
	found := make(map[string]bool)
	for _, kv := range response.Kvs {
		found[string(kv.Key)] = true
	}
	for key := range f.known {
		if !found[key] {
			f.delete(key)
		}
	}
	for _, kv := range response.Kvs {
		if value, ok := f.known[string(kv.Key)]; !ok || value != string(kv.Value) {
			f.set(string(kv.Key), string(kv.Value))
		}
	}
	// Of the whole store, not of these keys: the watch has to begin right behind what was read.
	f.next = response.Header.Revision + 1
	fmt.Println("read at revision", response.Header.Revision)
	return nil
}

// follow follows from f.next, until history from there on is compacted or the server gives up.
func (f *follower) follow(ctx context.Context) error {
	// The watch, and what the client keeps for it, end with this function.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if f.next == 0 {
		if err := f.read(ctx); err != nil {
			return err
		}
	}
	// A member that lost its cluster shall say so, rather than stay silent while the others go on.
	ctx = clientv3.WithRequireLeader(ctx)
	// A broken connection is not seen here: the client opens another one behind the last revision that it handed over. Progress
	// says now and then how far the store is, so that we never fall behind a compaction while nothing changes here.
	for response := range f.client.Watch(ctx, f.prefix, clientv3.WithPrefix(), clientv3.WithRev(f.next), clientv3.WithProgressNotify()) {
		if response.CompactRevision != 0 {
			// What happened since is forgotten: only what is there now can be read.
			f.next = 0
			return nil
		}
		if err := response.Err(); err != nil {
			return err
		}
		for _, event := range response.Events {
			if event.Type == clientv3.EventTypeDelete {
				f.delete(string(event.Kv.Key))
			} else {
				f.set(string(event.Kv.Key), string(event.Kv.Value))
			}
			f.next = event.Kv.ModRevision + 1
		}
		if response.IsProgressNotify() {
			f.next = response.Header.Revision + 1
		}
	}
	return nil
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: config_watch ENDPOINTS PREFIX")
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(os.Args[1], ",")})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	f := &follower{client: client, prefix: os.Args[2], known: make(map[string]string)}
	for {
		// Reading and watching change nothing: both may be repeated whatever the error was.
		if err := f.follow(context.Background()); err != nil {
			log.Printf("%v; going on from revision %d", err, f.next)
			time.Sleep(time.Second)
		}
	}
}
