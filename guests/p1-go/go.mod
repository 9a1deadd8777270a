module p1-go

go 1.24
