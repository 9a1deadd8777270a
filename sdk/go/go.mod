module github.com/dhow-dev/dhow/sdk/go

go 1.24
