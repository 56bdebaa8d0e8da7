// A Kafka broker in memory, from the test kit of the client that the Collector uses: it speaks the protocol to real
// clients, and keeps nothing.
package main

import (
	"log"
	"os"
	"strconv"

	"github.com/twmb/franz-go/pkg/kfake"
)

func main() {
	port, err := strconv.Atoi(os.Args[1])
	if err == nil {
		_, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.SeedTopics(2, "otlp_spans"))
	}
	if err != nil {
		log.Fatal(err)
	}
	select {}
}
