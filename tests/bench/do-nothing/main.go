// The least that a scheduler extender in Go can do: it reads each request into kube-scheduler's own types,
// and answers that the pod fits every node, and that every node is as good as any other.
//
// It keeps no state and looks at nothing, so whoever answers faster has nothing left to gain from knowing less.
// It prints the address that it listens on, and ends with its standard input.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	extender "k8s.io/kube-scheduler/extender/v1"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	http.HandleFunc("POST /filter", verb(filter))
	http.HandleFunc("POST /prioritize", verb(prioritize))
	log.Fatal(http.Serve(listener, nil))
}

func verb(answer func(extender.ExtenderArgs) any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var args extender.ExtenderArgs
		if err := json.NewDecoder(r.Body).Decode(&args); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		// Marshalled whole, so that the answer has a Content-Length: kube-scheduler's client gives a connection up
		// whose chunked answer it has not read to the end.
		body, err := json.Marshal(answer(args))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body)
	}
}

func filter(args extender.ExtenderArgs) any {
	return extender.ExtenderFilterResult{NodeNames: args.NodeNames}
}

func prioritize(args extender.ExtenderArgs) any {
	if args.NodeNames == nil {
		return extender.HostPriorityList{}
	}
	scores := make(extender.HostPriorityList, 0, len(*args.NodeNames))
	for _, name := range *args.NodeNames {
		scores = append(scores, extender.HostPriority{Host: name, Score: 1})
	}
	return scores
}
