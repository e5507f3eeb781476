// Command spiffe-verify judges X509-SVIDs with go-spiffe, the reference implementation.
//
// The Python rules in zerotrust.pki.conformance are compared with it, so that no mistake is shared between the judge
// and the judged. One certificate is given by flags; -batch judges many in one process:
//
//	spiffe-verify -cert chain.pem -bundle bundle.pem -trust-domain example.org [-id spiffe://example.org/ns/shop/sa/a]
//	printf 'chain.pem\tbundle.spiffe.json\texample.org\n' | spiffe-verify -batch
//
// Each verdict is one line, "ok <SPIFFE ID>" or "fail <reason>". The exit code is 0 when the verdict is ok (with
// -batch: when every line could be judged), 1 when it is fail, 2 for a usage error.
package main

import (
	"bufio"
	"bytes"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// request is one question: does this chain hold an SVID of this trust domain?
type request struct {
	cert, bundle, trustDomain, id string
	at                            time.Time
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("spiffe-verify", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var question request
	flags.StringVar(&question.cert, "cert", "", "file with the PEM chain, leaf first")
	flags.StringVar(&question.bundle, "bundle", "", "file with the trust bundle, PEM or SPIFFE JSON")
	flags.StringVar(&question.trustDomain, "trust-domain", "", "trust domain that the bundle belongs to")
	flags.StringVar(&question.id, "id", "", "SPIFFE ID that the certificate must have")
	at := flags.String("at", "", "time to judge at, RFC 3339 (default now)")
	batch := flags.Bool("batch", false, "read lines of cert<TAB>bundle<TAB>trust-domain from standard input")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if *at != "" {
		moment, err := time.Parse(time.RFC3339, *at)
		if err != nil {
			fmt.Fprintf(stderr, "-at: %v\n", err)
			return 2
		}
		question.at = moment
	}
	if *batch {
		return judgeLines(stdin, stdout, stderr, question)
	}
	if question.cert == "" || question.bundle == "" || question.trustDomain == "" || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "-cert, -bundle and -trust-domain are required, or -batch")
		return 2
	}
	line, ok := verdict(question)
	fmt.Fprintln(stdout, line)
	if !ok {
		return 1
	}
	return 0
}

// judgeLines answers each line as it comes, so that a caller may also hold the process open and converse with it.
func judgeLines(stdin io.Reader, stdout, stderr io.Writer, shared request) int {
	lines := bufio.NewScanner(stdin)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		if len(fields) != 3 {
			fmt.Fprintf(stderr, "want cert<TAB>bundle<TAB>trust-domain, got %d fields\n", len(fields))
			return 2
		}
		question := shared
		question.cert, question.bundle, question.trustDomain = fields[0], fields[1], fields[2]
		line, _ := verdict(question)
		fmt.Fprintln(stdout, line)
	}
	if err := lines.Err(); err != nil {
		fmt.Fprintf(stderr, "standard input: %v\n", err)
		return 2
	}
	return 0
}

func verdict(question request) (string, bool) {
	id, err := judge(question)
	if err != nil {
		return "fail " + strings.ReplaceAll(err.Error(), "\n", " "), false
	}
	return "ok " + id.String(), true
}

func judge(question request) (spiffeid.ID, error) {
	trustDomain, err := spiffeid.TrustDomainFromString(question.trustDomain)
	if err != nil {
		return spiffeid.ID{}, err
	}
	authorities, err := readBundle(trustDomain, question.bundle)
	if err != nil {
		return spiffeid.ID{}, err
	}
	chain, err := readChain(question.cert)
	if err != nil {
		return spiffeid.ID{}, err
	}
	var options []x509svid.VerifyOption
	if !question.at.IsZero() {
		options = append(options, x509svid.WithTime(question.at))
	}
	id, _, err := x509svid.ParseAndVerify(chain, authorities, options...)
	if err != nil {
		return spiffeid.ID{}, err
	}
	if question.id != "" && id.String() != question.id {
		return spiffeid.ID{}, fmt.Errorf("certificate is for %s, want %s", id, question.id)
	}
	return id, nil
}

// readBundle tells the two formats apart by their first byte: a SPIFFE bundle is a JSON object.
func readBundle(trustDomain spiffeid.TrustDomain, path string) (x509bundle.Source, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(bytes.TrimSpace(content), []byte("{")) {
		return spiffebundle.Parse(trustDomain, content)
	}
	return x509bundle.Parse(trustDomain, content)
}

// readChain returns the DER certificates of a PEM file, unparsed: parsing them is part of go-spiffe's verdict.
func readChain(path string) ([][]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var chain [][]byte
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			chain = append(chain, block.Bytes)
		}
	}
	if len(chain) == 0 {
		return nil, errors.New("no certificate in " + path)
	}
	return chain, nil
}
