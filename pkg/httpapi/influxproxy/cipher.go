package influxproxy

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/topology"
)

// encrypt and decrypt are the cipher of credentials in configuration files, under
// the parameter names of both generations. Its key is public, so neither asks for
// a user: what they do anybody can do.
func (rm *room) encrypt(c *gin.Context) {
	p, err := readParams(c.Request)
	if err != nil {
		refuseWith(c, err)
		return
	}
	text, err := topology.EncryptCredential(topology.CipherKey, p.first("msg", "text"))
	if err != nil {
		rm.unavailable(c, "encrypting a message", err)
		return
	}
	sentence(c, http.StatusOK, text)
}

func (rm *room) decrypt(c *gin.Context) {
	p, err := readParams(c.Request)
	if err != nil {
		refuseWith(c, err)
		return
	}
	if p.get("key") != topology.CipherKey {
		refuseWith(c, errKey)
		return
	}
	text, err := topology.Decipher(topology.CipherKey, p.first("msg", "text"))
	if err != nil {
		refuseWith(c, errMessage)
		return
	}
	sentence(c, http.StatusOK, text)
}
