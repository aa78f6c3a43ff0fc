package topology

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// CipherKey is the one key of influx-proxy's credential cipher. It is public and
// the same everywhere: the cipher keeps a password from being read over a shoulder
// and protects nothing else. Ringmaster reads it for the sake of existing files.
const CipherKey = "consistentcipher"

// Errors of the credential cipher.
var (
	ErrCipherKey  = errors.New("invalid key")
	ErrCipherText = errors.New("not a credential that influx-proxy encrypted")
)

// EncryptCredential encrypts a message as influx-proxy's /encrypt does: AES-128 in
// CBC mode with the key as initialization vector, the message filled with zero
// bytes to whole blocks, in base64 without padding over an alphabet whose last two
// characters are _ and !. The empty message stays empty. It returns ErrCipherKey for
// any key but CipherKey, as influx-proxy does.
func EncryptCredential(key, message string) (string, error) {
	if key != CipherKey {
		return "", ErrCipherKey
	}

	block, err := aes.NewCipher([]byte(key))
	if err != nil {
		return "", ErrCipherKey
	}

	size := (len(message) + aes.BlockSize - 1) / aes.BlockSize * aes.BlockSize
	text := make([]byte, size)
	copy(text, message)
	cipher.NewCBCEncrypter(block, []byte(key)).CryptBlocks(text, text)

	return cipherEncoding().EncodeToString(text), nil
}

// DecryptCredential undoes EncryptCredential. It returns ErrCipherKey for any key
// but CipherKey, and ErrCipherText for what cannot have come from EncryptCredential
// given a text: bad base64, partial blocks, or bytes that are no printable text.
func DecryptCredential(key, message string) (string, error) {
	plain, err := Decipher(key, message)
	if err != nil {
		return "", err
	}

	if !utf8.ValidString(plain) || strings.ContainsFunc(plain, unicode.IsControl) {
		return "", ErrCipherText
	}

	return plain, nil
}

// Decipher undoes EncryptCredential for any message, text or not, as influx-proxy's
// /decrypt does; zero bytes at the end of the message are lost. It returns
// ErrCipherKey for any key but CipherKey, and ErrCipherText for bad base64 or
// partial blocks.
func Decipher(key, message string) (string, error) {
	if key != CipherKey {
		return "", ErrCipherKey
	}

	// The decoder would skip line breaks, which no ciphertext has.
	if strings.ContainsAny(message, "\r\n") {
		return "", ErrCipherText
	}

	text, err := cipherEncoding().DecodeString(message)
	if err != nil || len(text)%aes.BlockSize != 0 {
		return "", ErrCipherText
	}

	block, err := aes.NewCipher([]byte(key))
	if err != nil {
		return "", ErrCipherKey
	}

	cipher.NewCBCDecrypter(block, []byte(key)).CryptBlocks(text, text)

	return strings.TrimRight(string(text), "\x00"), nil
}

func cipherEncoding() *base64.Encoding {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_!"

	return base64.NewEncoding(alphabet).WithPadding(base64.NoPadding)
}
