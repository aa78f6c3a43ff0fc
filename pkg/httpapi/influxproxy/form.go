package influxproxy

import (
	"bytes"
	"errors"
	"io"
	"mime/multipart"
	"net/url"
)

// maxParts bounds the parts of a multipart form.
const maxParts = 64

// parseMultipart reads the fields of a multipart form. The body is in memory
// already, so its parts stay there too; files are no parameters.
func parseMultipart(boundary string, body []byte) (url.Values, error) {
	// The reader takes a body that was cut short for one that is at its end.
	if boundary == "" || !bytes.Contains(body, []byte("--"+boundary+"--")) {
		return nil, errors.New("no boundary at the end")
	}
	form := url.Values{}
	reader := multipart.NewReader(bytes.NewReader(body), boundary)
	for range maxParts {
		part, err := reader.NextRawPart()
		if errors.Is(err, io.EOF) {
			return form, nil
		}
		if err != nil {
			return nil, err
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return nil, err
		}
		if part.FileName() == "" && part.FormName() != "" {
			form.Add(part.FormName(), string(value))
		}
	}
	return nil, errors.New("too many parts")
}
