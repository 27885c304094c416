module github.com/qsimc/qsimc

go 1.26
