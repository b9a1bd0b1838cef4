package main

// What Go's tlog package says of the tiles of a security server, read at its door for auditors:
//
//	witness tiles URL CERTIFICATE KEY SERVER EXTRACTED LOG_KEY WITNESS_KEY...
//
// CERTIFICATE and KEY are the auditor's, SERVER what the server shows, EXTRACTED a directory of trave-verify --extract.

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A log's tiles at a URL, as tlog.TileHashReader asks for them.
type door struct {
	client *http.Client
	url    string
	// Turns a bit of each tile, as somebody would who shows another tree.
	lies  bool
	asked int
}

func (d *door) Height() int { return torchwood.TileHeight }

func (d *door) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var data [][]byte
	for _, tile := range tiles {
		read := d.get("/"+torchwood.TilePath(tile), "application/octet-stream")
		if len(read) != tile.W*tlog.HashSize {
			return nil, fmt.Errorf("%s has %d bytes", torchwood.TilePath(tile), len(read))
		}
		if d.lies {
			read[0] ^= 1
		}
		data = append(data, read)
		d.asked++
	}
	return data, nil
}

func (d *door) SaveTiles([]tlog.Tile, [][]byte) {}

func (d *door) get(path, kind string) []byte {
	answer, err := d.client.Get(d.url + path)
	check(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	check(err)
	if answer.StatusCode != 200 || answer.Header.Get("Content-Type") != kind {
		fail("%s: %d %s %q", path, answer.StatusCode, answer.Header.Get("Content-Type"), body)
	}
	return body
}

func (d *door) refuses(path string) {
	answer, err := d.client.Get(d.url + path)
	check(err)
	answer.Body.Close()
	if answer.StatusCode != 404 {
		fail("%s: %d instead of 404", path, answer.StatusCode)
	}
}

// A client that knows the server by its certificate, and shows one of its own, or none.
func client(server string, two bool, own ...tls.Certificate) *http.Client {
	text, err := os.ReadFile(server)
	check(err)
	block, _ := pem.Decode(text)
	if block == nil {
		fail("%s holds no certificate", server)
	}
	pinned := func(shown [][]byte, _ [][]*x509.Certificate) error {
		if len(shown) == 0 || !bytes.Equal(shown[0], block.Bytes) {
			return errors.New("another server")
		}
		return nil
	}
	// The certificate itself is compared: names and authorities do not count beside that.
	config := &tls.Config{InsecureSkipVerify: true, VerifyPeerCertificate: pinned, Certificates: own}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: two}}
}

func tiles(url, certificate, key, server, extracted string, logKey string, witnessKeys []string) {
	own, err := tls.LoadX509KeyPair(certificate, key)
	check(err)
	for _, path := range []string{"/checkpoint", "/tile/0/000.p/1"} {
		if answer, err := client(server, true).Get(url + path); err == nil {
			fail("without a certificate %s is answered: %d", path, answer.StatusCode)
		}
	}
	for _, two := range []bool{true, false} {
		at := &door{client: client(server, two, own), url: url}
		tree, signers := opened(at.get("/checkpoint", "text/plain; charset=utf-8"), logKey, witnessKeys)
		whole(at, tree)
		records := extractedRecords(at, tree, extracted)
		at.refuses(fmt.Sprintf("/tile/0/%03d.p/%d", tree.N/256, tree.N%256+200))
		at.refuses("/tile/entries/000")
		fmt.Printf("%d records under a checkpoint of %s: %d tiles, %d records of the proof\n",
			tree.N, strings.Join(signers, ", "), at.asked, records)
	}
	// The proof's own checkpoint is an older state of the same log.
	at := &door{client: client(server, true, own), url: url}
	tree, _ := opened(at.get("/checkpoint", "text/plain; charset=utf-8"), logKey, nil)
	text, err := os.ReadFile(filepath.Join(extracted, "checkpoint/note.txt"))
	check(err)
	older, _ := opened(text, logKey, nil)
	continues(at, tree, older)
	fmt.Printf("%d records continue the %d of the proof's checkpoint\n", tree.N, older.N)
	liar := &door{client: at.client, url: url, lies: true}
	if _, err := tlog.ProveRecord(tree.N, 0, tlog.TileHashReader(tree, liar)); err == nil {
		fail("tlog takes a changed tile for the log's")
	}
}

func opened(text []byte, logKey string, witnessKeys []string) (tlog.Tree, []string) {
	log, err := note.NewVerifier(logKey)
	check(err)
	verifiers := []note.Verifier{log}
	for _, key := range witnessKeys {
		witness, err := torchwood.NewCosignatureVerifier(key)
		check(err)
		verifiers = append(verifiers, witness)
	}
	signed, err := note.Open(text, note.VerifierList(verifiers...))
	check(err)
	if len(signed.Sigs) != len(verifiers) {
		fail("%d of %d signatures verify: %q", len(signed.Sigs), len(verifiers), text)
	}
	checkpoint, err := torchwood.ParseCheckpoint(signed.Text)
	check(err)
	if checkpoint.Origin != log.Name() {
		fail("the checkpoint of %s", checkpoint.Origin)
	}
	var names []string
	for _, signature := range signed.Sigs {
		names = append(names, signature.Name)
	}
	return checkpoint.Tree, names
}

// Every record of the tree is proved from its tiles, and every tenth older state.
func whole(at *door, tree tlog.Tree) {
	reader := tlog.TileHashReader(tree, at)
	for n := int64(0); n < tree.N; n++ {
		leaf, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, n)})
		check(err)
		proof, err := tlog.ProveRecord(tree.N, n, reader)
		check(err)
		check(tlog.CheckRecord(proof, tree.N, tree.Hash, n, leaf[0]))
	}
	for n := int64(1); n < tree.N; n += 10 {
		hash, err := tlog.TreeHash(n, reader)
		check(err)
		continues(at, tree, tlog.Tree{N: n, Hash: hash})
	}
}

func continues(at *door, tree, older tlog.Tree) {
	proof, err := tlog.ProveTree(tree.N, older.N, tlog.TileHashReader(tree, at))
	check(err)
	check(tlog.CheckTree(proof, tree.N, tree.Hash, older.N, older.Hash))
}

// The records of a proof, byte for byte, stand in the tree where the proof says.
func extractedRecords(at *door, tree tlog.Tree, extracted string) int {
	folders, err := filepath.Glob(filepath.Join(extracted, "records/*"))
	check(err)
	if len(folders) == 0 {
		fail("the proof has no records")
	}
	for _, folder := range folders {
		n, err := strconv.ParseInt(filepath.Base(folder), 10, 64)
		check(err)
		leaf, err := os.ReadFile(filepath.Join(folder, "leaf.bin"))
		check(err)
		proof, err := tlog.ProveRecord(tree.N, n, tlog.TileHashReader(tree, at))
		check(err)
		check(tlog.CheckRecord(proof, tree.N, tree.Hash, n, tlog.RecordHash(leaf)))
	}
	return len(folders)
}
