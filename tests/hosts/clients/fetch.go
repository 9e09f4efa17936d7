// fetch HOST:PORT...   reads a page of each and posts to it, with Go's net/http
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"
)

var client = http.Client{Timeout: 20 * time.Second}

func main() {
	for _, destination := range os.Args[1:] {
		show(client.Get("http://" + destination + "/page?by=go"))
		show(client.Post("http://"+destination+"/page", "text/plain", strings.NewReader("posted by Go")))
	}
}

func show(answer *http.Response, err error) {
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != 200 {
		log.Fatal(answer.Status, " ", err)
	}
	fmt.Print(string(body))
}
