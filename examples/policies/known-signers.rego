# Modules run if somebody on the list signed them, and not for ever.
package dhow

# Public keys of accounts, and what we call them.
signers := {"ACV3V5GWNKSTMDHNRD6XBBB4SWQTFLG2G5WYVEF5DXF3BP4KZQZE3KBY": "the shop's builders"}

# A token that holds for longer than this is refused, in seconds.
longest := (90 * 24) * 3600

default allow := false

allow if count(cause) == 0

cause contains "the module is not signed" if input.token == ""

cause contains sprintf("%v is not among the known signers", [input.claims.issuer]) if {
	not signers[input.claims.issuer]
}

cause contains "the token never expires" if {
	input.claims
	not input.claims.expires
}

cause contains sprintf("the token holds for more than %v days", [longest / (24 * 3600)]) if {
	input.claims.expires - input.claims.issued_at > longest
}
