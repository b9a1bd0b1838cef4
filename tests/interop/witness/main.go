// What Go's own note and tlog packages, and torchwood's cosignatures, say of our checkpoints, witnesses and logs.
//
//	witness read NOTE LOG_KEY WITNESS_KEY...   the note is signed by the log and by each witness
//	witness key FILE                           makes the key of a log; prints its verifier key
//	witness submit URL FILE WITNESS_KEY        is that log, and asks a witness of ours for every case of the protocol
//	witness tiles ...                          reads a log by its tiles: tiles.go
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const origin = "go.example/log"

func main() {
	args := os.Args[1:]
	switch {
	case len(args) >= 4 && args[0] == "read":
		read(args[1], args[2], args[3:])
	case len(args) == 2 && args[0] == "key":
		key(args[1])
	case len(args) == 4 && args[0] == "submit":
		submit(strings.TrimSuffix(args[1], "/"), args[2], args[3])
	case len(args) >= 7 && args[0] == "tiles":
		tiles(args[1], args[2], args[3], args[4], args[5], args[6], args[7:])
	default:
		fail("usage: witness read NOTE LOG_KEY WITNESS_KEY... | key FILE | submit URL FILE WITNESS_KEY | tiles ...")
	}
}

func read(file, logKey string, witnessKeys []string) {
	text, err := os.ReadFile(file)
	check(err)
	log, err := note.NewVerifier(logKey)
	check(err)
	verifiers := []note.Verifier{log}
	for _, key := range witnessKeys {
		witness, err := torchwood.NewCosignatureVerifier(key)
		check(err)
		verifiers = append(verifiers, witness)
	}
	opened, err := note.Open(text, note.VerifierList(verifiers...))
	check(err)
	if len(opened.Sigs) != len(verifiers) {
		fail("%d of %d signatures verify", len(opened.Sigs), len(verifiers))
	}
	checkpoint, err := torchwood.ParseCheckpoint(opened.Text)
	check(err)
	if checkpoint.Origin != log.Name() || checkpoint.N <= 0 || checkpoint.Extension != "" {
		fail("the checkpoint is %+v", checkpoint)
	}
	for _, signature := range opened.Sigs[1:] {
		seconds, err := torchwood.CosignatureTimestamp(signature)
		check(err)
		fmt.Printf("%s at %s\n", signature.Name, time.Unix(seconds, 0).UTC().Format(time.RFC3339))
	}
}

func key(file string) {
	signer, verifier, err := note.GenerateKey(nil, origin)
	check(err)
	check(os.WriteFile(file, []byte(signer), 0o600))
	fmt.Println(verifier)
}

// A log in memory.
type log struct {
	hashes []tlog.Hash
	size   int64
	signer note.Signer
}

func (l *log) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, 0, len(indexes))
	for _, index := range indexes {
		found = append(found, l.hashes[index])
	}
	return found, nil
}

func (l *log) grow(to int64, story string) {
	for ; l.size < to; l.size++ {
		stored, err := tlog.StoredHashes(l.size, fmt.Appendf(nil, "%s %d", story, l.size), l)
		check(err)
		l.hashes = append(l.hashes, stored...)
	}
}

// The body of an add-checkpoint request from old to size, with Go's own consistency proof.
func (l *log) request(old, size int64) []byte {
	root, err := tlog.TreeHash(size, l)
	check(err)
	checkpoint := torchwood.Checkpoint{Origin: origin, Tree: tlog.Tree{N: size, Hash: root}}
	signed, err := note.Sign(&note.Note{Text: checkpoint.String()}, l.signer)
	check(err)
	body := fmt.Appendf(nil, "old %d\n", old)
	if old > 0 && old < size {
		proof, err := tlog.ProveTree(size, old, l)
		check(err)
		for _, hash := range proof {
			body = fmt.Appendf(body, "%s\n", base64.StdEncoding.EncodeToString(hash[:]))
		}
	}
	return append(append(body, '\n'), signed...)
}

func submit(url, file, witnessKey string) {
	text, err := os.ReadFile(file)
	check(err)
	signer, err := note.NewSigner(string(text))
	check(err)
	witness, err := torchwood.NewCosignatureVerifier(witnessKey)
	check(err)
	honest, fork := &log{signer: signer}, &log{signer: signer}
	honest.grow(300, "true")
	fork.grow(300, "false")
	stranger, _, err := note.GenerateKey(nil, "go.example/another")
	check(err)
	unknown, err := note.NewSigner(stranger)
	check(err)
	other, _, err := note.GenerateKey(nil, origin)
	check(err)
	forger, err := note.NewSigner(other)
	check(err)

	expect(url, honest.request(7, 9), 409, "0\n", nil)
	expect(url, (&log{hashes: honest.hashes, signer: unknown}).named("go.example/another", 9), 404, "", nil)
	expect(url, (&log{hashes: honest.hashes, signer: forger}).request(0, 9), 403, "", nil)
	expect(url, []byte("old 1\n"), 400, "", nil)
	expect(url, honest.request(12, 9), 400, "", nil)
	last := int64(0)
	for _, size := range []int64{1, 2, 3, 5, 8, 9, 64, 65, 127, 128, 129, 255, 256, 257, 300} {
		expect(url, honest.request(last, size), 200, "", witness)
		last = size
	}
	expect(url, honest.request(300, 300), 200, "", witness)
	expect(url, honest.request(9, 300), 409, "300\n", nil)
	expect(url, fork.request(300, 300), 409, "300\n", nil)
	fork.grow(400, "false")
	expect(url, fork.request(300, 400), 422, "", nil)

	answer, err := http.Get(fmt.Sprintf("%s/%x/checkpoint", url, sha256.Sum256([]byte(origin))))
	check(err)
	shown, err := io.ReadAll(answer.Body)
	check(err)
	verifier, err := torchwood.NewVerifierFromSigner(string(text))
	check(err)
	opened, err := note.Open(shown, note.VerifierList(verifier, witness))
	check(err)
	if len(opened.Sigs) != 2 || !strings.Contains(opened.Text, "\n300\n") {
		fail("the witness shows %q", shown)
	}
}

// A checkpoint of that size under another origin.
func (l *log) named(name string, size int64) []byte {
	root, err := tlog.TreeHash(size, l)
	check(err)
	checkpoint := torchwood.Checkpoint{Origin: name, Tree: tlog.Tree{N: size, Hash: root}}
	signed, err := note.Sign(&note.Note{Text: checkpoint.String()}, l.signer)
	check(err)
	return append([]byte("old 0\n\n"), signed...)
}

// One request, and the answer that the specification lays down. With a witness, the answer must be its cosignature.
func expect(url string, body []byte, status int, says string, witness note.Verifier) {
	answer, err := http.Post(url+"/add-checkpoint", "text/plain; charset=utf-8", bytes.NewReader(body))
	check(err)
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	check(err)
	if answer.StatusCode != status || (says != "" && string(said) != says) {
		fail("%d %q instead of %d %q to %q", answer.StatusCode, said, status, says, body)
	}
	if status == 409 && answer.Header.Get("Content-Type") != "text/x.tlog.size" {
		fail("a conflict of the type %q", answer.Header.Get("Content-Type"))
	}
	if witness == nil {
		return
	}
	_, checkpoint, _ := bytes.Cut(body, []byte("\n\n"))
	if _, err := note.Open(append(bytes.Clone(checkpoint), said...), note.VerifierList(witness)); err != nil {
		fail("the cosignature %q: %v", said, err)
	}
}

func check(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}
