// A schema registry for tests, in memory: the fake that franz-go tests its own client with.
//
//	schema-registry ADDRESS [USER:PASSWORD [CERTIFICATE KEY]]
//
// With a login it demands basic authentication, with a certificate it speaks TLS.
package main

import (
	"crypto/subtle"
	"log"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/sr/srfake"
)

func main() {
	handler := http.Handler(srfake.NewRegistry().Handler())
	if len(os.Args) > 2 && os.Args[2] != "" {
		handler = demand(os.Args[2], handler)
	}
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on %s", listener.Addr())
	if len(os.Args) > 4 {
		log.Fatal(http.ServeTLS(listener, handler, os.Args[3], os.Args[4]))
	}
	log.Fatal(http.Serve(listener, handler))
}

func demand(login string, inner http.Handler) http.Handler {
	return http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		user, password, given := request.BasicAuth()
		same := subtle.ConstantTimeCompare([]byte(strings.Join([]string{user, password}, ":")), []byte(login)) == 1
		if given && same {
			inner.ServeHTTP(answer, request)
			return
		}
		answer.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
		answer.WriteHeader(http.StatusUnauthorized)
		_, _ = answer.Write([]byte(`{"error_code":401,"message":"Unauthorized"}`))
	})
}
