module quickstart

go 1.24

require github.com/dhow-dev/dhow/sdk/go v0.1.0

replace github.com/dhow-dev/dhow/sdk/go => ..
