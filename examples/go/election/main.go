// One of several is the leader: election ENDPOINTS NAME [CANDIDATE]
//
// With a candidate: stands for election, prints `elected CANDIDATE` when it leads, waits for Enter, resigns (`resigned`). If its
// session is lost it prints `lost` and ends at once. Without: prints `leader CANDIDATE` for each new leader, for ever.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// Seconds that a leader may be silent before another one is elected.
const ttl = 30

func stand(client *clientv3.Client, name, candidate string) error {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(ttl))
	if err != nil {
		return err
	}
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	go func() {
		<-session.Done()
		if ctx.Err() != nil {
			return
		}
		// A leader without a session is none: others may lead already. It must stop all that only a leader does; here, everything.
		fmt.Println("lost")
		os.Exit(1)
	}()
	election := concurrency.NewElection(session, name)
	// Waits until all that stood before us are gone. A campaign that failed is not repeated: the session goes, and with it
	// whatever place it had taken.
	if err := election.Campaign(ctx, candidate); err != nil {
		return err
	}
	fmt.Println("elected", candidate)
	// Enter, or the end of the input.
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	// The next one leads at once. Without this it would wait for the lease to run out.
	if err := election.Resign(ctx); err != nil {
		return err
	}
	leave()
	// If this fails the lease runs out by itself.
	_ = session.Close()
	fmt.Println("resigned")
	return nil
}

// observe ends when the client gave the watch up.
func observe(client *clientv3.Client, name string, last *string) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(context.Background()))
	defer cancel()
	// Only for reading: it gets no key, so its lease does not matter.
	session, err := concurrency.NewSession(client, concurrency.WithTTL(ttl))
	if err != nil {
		return err
	}
	defer session.Close()
	// The newest leader and what follows: one that led for a moment only may be left out.
	for response := range concurrency.NewElection(session, name).Observe(ctx) {
		kv := response.Kvs[0]
		// After a reconnect the same leader is told once more.
		proposal := fmt.Sprintf("%s %d", kv.Key, kv.ModRevision)
		if proposal != *last {
			fmt.Println("leader", string(kv.Value))
		}
		*last = proposal
	}
	return nil
}

func main() {
	if len(os.Args) != 3 && len(os.Args) != 4 {
		log.Fatal("usage: election ENDPOINTS NAME [CANDIDATE]")
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(os.Args[1], ",")})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if len(os.Args) == 4 {
		if err := stand(client, os.Args[2], os.Args[3]); err != nil {
			log.Fatal(err)
		}
		return
	}
	last := ""
	for {
		// Observing changes nothing and may be repeated whatever the error was.
		if err := observe(client, os.Args[2], &last); err != nil {
			log.Printf("%v; observing again", err)
		}
		time.Sleep(time.Second)
	}
}
