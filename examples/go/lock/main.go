// A lock that guards something outside etcd: lock ENDPOINTS NAME STORE TEXT
//
// Takes the lock NAME, waits for Enter (the work), writes TEXT to the file STORE, gives the lock back. Prints `locked NAME, token
// T`, then `wrote TEXT` or `refused: …` (and ends with code 1), then `unlocked`.
//
// No lock service can promise that two holders never overlap: a holder that stands still (a full disk, a paused machine) longer
// than its lease lives wakes up and still believes that it holds the lock. So every write carries a *fencing token* that grows
// from holder to holder, and the store refuses a token that is smaller than one it has seen.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"syscall"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// Seconds that a holder may be silent before the lock is given to the next one.
const ttl = 60

// write is a store that others write, too: a file with the largest token seen in its first line and the text in its second.
//
// It stands for a database, a disk or a service of yours. What matters: comparing and writing are one step.
func write(store string, token int64, text string) error {
	file, err := os.OpenFile(store, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	defer file.Close()
	// Held until the file is closed. It makes this one step; it is not the lock of the example.
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	var seen int64
	if _, err := fmt.Fscan(file, &seen); err != nil && err != io.EOF {
		return err
	}
	if token < seen {
		return fmt.Errorf("token %d is older than %d", token, seen)
	}
	if err := file.Truncate(0); err != nil {
		return err
	}
	if _, err := file.WriteAt([]byte(fmt.Sprintf("%d\n%s\n", token, text)), 0); err != nil {
		return err
	}
	return file.Sync()
}

// tokenOf is the revision at which the lock's key was created. Holders are served in this order, so it only grows; and every
// language can read it, so all have the same tokens.
func tokenOf(ctx context.Context, client *clientv3.Client, mutex *concurrency.Mutex) (int64, error) {
	response, err := client.Get(ctx, mutex.Key())
	if err != nil {
		return 0, err
	}
	if len(response.Kvs) == 0 {
		return 0, concurrency.ErrSessionExpired
	}
	return response.Kvs[0].CreateRevision, nil
}

func main() {
	if len(os.Args) != 5 {
		log.Fatal("usage: lock ENDPOINTS NAME STORE TEXT")
	}
	name, store, text := os.Args[2], os.Args[3], os.Args[4]
	ctx := context.Background()
	client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(os.Args[1], ",")})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	// Its lease is renewed while we work. That it ran out (session.Done) is no reason to stop in the middle: the store knows.
	session, err := concurrency.NewSession(client, concurrency.WithTTL(ttl))
	if err != nil {
		log.Fatal(err)
	}
	mutex := concurrency.NewMutex(session, name)
	// After an error nobody knows whether our place in the queue was taken. It goes with the session; a second try with another
	// session is always right, sending the same write again is not.
	if err := mutex.Lock(ctx); err != nil {
		log.Fatal(err)
	}
	token, err := tokenOf(ctx, client, mutex)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("locked %s, token %d\n", name, token)
	// Enter, or the end of the input.
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	// Asking etcd "do I still hold it?" here would prove nothing: we could stand still right after the answer.
	if err := write(store, token, text); err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
	fmt.Println("wrote", text)
	// If either fails the lease's end frees the lock, later.
	_ = mutex.Unlock(ctx)
	_ = session.Close()
	fmt.Println("unlocked")
}
