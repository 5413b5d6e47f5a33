module go-hold

go 1.22
