// Http-echo answers every request with one text, as the server of the Kubernetes seccomp tutorial does. At
// /attempts it makes some system calls and says of each, in JSON, whether it was allowed: what the pod's
// profile does, seen from inside.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"syscall"
	"unsafe"
)

func main() {
	text := flag.String("text", "", "what to answer")
	listen := flag.String("listen", ":5678", "where to listen")
	flag.Parse()
	http.HandleFunc("/attempts", func(answer http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(answer).Encode(attempts())
	})
	http.HandleFunc("/", func(answer http.ResponseWriter, _ *http.Request) { fmt.Fprintln(answer, *text) })
	fmt.Println("listening on", *listen)
	fmt.Fprintln(os.Stderr, http.ListenAndServe(*listen, nil))
	os.Exit(1)
}

// Each call is harmless, needs no privilege, and succeeds where no filter forbids it.
func attempts() map[string]string {
	var name [256]byte
	path, _ := syscall.BytePtrFromString("/")
	var status [512]byte
	return map[string]string{
		"getpid":  call(syscall.SYS_GETPID, 0, 0),
		"uname":   call(syscall.SYS_UNAME, uintptr(unsafe.Pointer(&status)), 0),
		"getcwd":  call(syscall.SYS_GETCWD, uintptr(unsafe.Pointer(&name)), uintptr(len(name))),
		"statfs":  call(syscall.SYS_STATFS, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&status))),
		"getppid": call(syscall.SYS_GETPPID, 0, 0),
		"sysinfo": call(syscall.SYS_SYSINFO, uintptr(unsafe.Pointer(&status)), 0),
	}
}

func call(number, first, second uintptr) string {
	if _, _, failure := syscall.Syscall(number, first, second, 0); failure != 0 {
		return failure.Error()
	}
	return "allowed"
}
