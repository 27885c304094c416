module github.com/qsimc/qsimc

go 1.26.0

require google.golang.org/protobuf v1.36.12

require (
	github.com/google/go-cmp v0.7.0
	golang.org/x/sys v0.49.0
)
