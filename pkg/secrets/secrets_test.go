package secrets_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"ringmaster/pkg/secrets"
)

// keyFileVariable makes the test binary a process that starts on a key file, seals
// one text and prints it.
const keyFileVariable = "SECRETS_TEST_KEY_FILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(keyFileVariable); path != "" {
		keys, err := secrets.OpenOrCreate(path)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}

		sealed, err := keys.Seal([]byte("from a process"), []byte("context"))
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}

		fmt.Print(sealed)
		os.Exit(0)
	}

	goleak.VerifyTestMain(m)
}

func newKeys(t *testing.T) (*secrets.Keyring, string) {
	t.Helper()

	path := filepath.Join(t.TempDir(), "key")
	keys, err := secrets.OpenOrCreate(path)
	require.NoError(t, err)

	return keys, path
}

func TestKeyFileIsMadeOnceAndPrivate(t *testing.T) {
	t.Parallel()

	first, path := newKeys(t)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode())

	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "no temporary file is left")

	sealed, err := first.Seal([]byte("secret"), []byte("bucket/key"))
	require.NoError(t, err)

	again, err := secrets.OpenOrCreate(path)
	require.NoError(t, err)
	plain, err := again.Open(sealed, []byte("bucket/key"))
	require.NoError(t, err)
	require.Equal(t, "secret", string(plain))

	_, err = secrets.Create(path)
	require.ErrorIs(t, err, fs.ErrExist, "a key is never replaced")

	entries, err = os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

func TestSealedTextsOpenOnlyWhereTheyBelong(t *testing.T) {
	t.Parallel()

	keys, _ := newKeys(t)
	other, _ := newKeys(t)

	rapid.Check(t, func(t *rapid.T) {
		plain := []byte(rapid.String().Draw(t, "plain"))
		context := []byte(rapid.String().Draw(t, "context"))

		sealed, err := keys.Seal(plain, context)
		require.NoError(t, err)

		opened, err := keys.Open(sealed, context)
		require.NoError(t, err)
		require.True(t, bytes.Equal(plain, opened))

		_, err = keys.Open(sealed, append(context, 'x'))
		require.ErrorIs(t, err, secrets.ErrDamaged)

		_, err = other.Open(sealed, context)
		require.ErrorIs(t, err, secrets.ErrWrongKey)

		at := rapid.IntRange(0, len(sealed)-1).Draw(t, "at")
		changed := []byte(sealed)
		changed[at] ^= 1

		if got, err := keys.Open(string(changed), context); err == nil {
			// Only the unused bits of the last base64 character can change unseen.
			require.True(t, bytes.Equal(plain, got))
			require.Equal(t, len(sealed)-1, at)
		}

		_, err = keys.Open(sealed[:at], context)
		require.Error(t, err)
	})
}

func TestWithoutAKey(t *testing.T) {
	t.Parallel()

	_, err := secrets.Open(filepath.Join(t.TempDir(), "key"))
	require.ErrorIs(t, err, secrets.ErrNoKey)

	var none *secrets.Keyring

	_, err = none.Seal([]byte("x"), nil)
	require.ErrorIs(t, err, secrets.ErrNoKey)
	_, err = none.Open("x", nil)
	require.ErrorIs(t, err, secrets.ErrNoKey)
}

func TestUnusableKeyFilesSayWhatToDo(t *testing.T) {
	t.Parallel()

	_, path := newKeys(t)

	for _, mode := range []fs.FileMode{0o640, 0o604, 0o660, 0o644, 0o601} {
		require.NoError(t, os.Chmod(path, mode))
		_, err := secrets.OpenOrCreate(path)
		require.ErrorIs(t, err, secrets.ErrKeyFile)
		require.ErrorContains(t, err, "chmod 600")
		require.ErrorContains(t, err, fmt.Sprintf("%04o", mode))
	}

	require.NoError(t, os.Chmod(path, 0o400))
	_, err := secrets.Open(path)
	require.NoError(t, err, "a read-only key is fine")

	key, err := os.ReadFile(path)
	require.NoError(t, err)

	for name, text := range map[string]string{
		"empty": "", "text": "not a keyset", "cut": string(key[:len(key)/2]), "no keys": `{"primaryKeyId":1,"key":[]}`,
		"wrong primary": strings.Replace(string(key), `"primaryKeyId":`, `"primaryKeyId":1`, 1),
	} {
		bad := filepath.Join(t.TempDir(), "key")
		require.NoError(t, os.WriteFile(bad, []byte(text), 0o600))
		_, err := secrets.OpenOrCreate(bad)
		require.ErrorIs(t, err, secrets.ErrKeyFile, name)
		require.ErrorContains(t, err, bad)

		after, err := os.ReadFile(bad)
		require.NoError(t, err)
		require.Equal(t, text, string(after), "a key file is never overwritten")
	}

	_, err = secrets.OpenOrCreate(t.TempDir())
	require.ErrorIs(t, err, secrets.ErrKeyFile)
}

// TestFirstStartsAgree starts many goroutines and some processes at once on a
// directory without a key: what any of them seals, every other opens.
func TestFirstStartsAgree(t *testing.T) {
	t.Parallel()

	const rounds, goroutines, processes = 5, 16, 4

	self, err := os.Executable()
	require.NoError(t, err)

	for range rounds {
		path := filepath.Join(t.TempDir(), "key")
		sealed := make([]string, goroutines+processes)
		failed := make([]error, goroutines+processes)

		var (
			starts sync.WaitGroup
			begin  = make(chan struct{})
		)

		for i := range sealed {
			starts.Go(func() {
				<-begin

				if i >= goroutines {
					command := exec.CommandContext(t.Context(), self)
					command.Env = append(os.Environ(), keyFileVariable+"="+path)
					out, err := command.Output()
					sealed[i], failed[i] = string(out), err

					return
				}

				keys, err := secrets.OpenOrCreate(path)
				if err != nil {
					failed[i] = err

					return
				}

				sealed[i], failed[i] = keys.Seal([]byte("from a goroutine"), []byte("context"))
			})
		}

		close(begin)
		starts.Wait()

		keys, err := secrets.Open(path)
		require.NoError(t, err)

		for i := range sealed {
			require.NoError(t, failed[i], sealed[i])
			plain, err := keys.Open(sealed[i], []byte("context"))
			require.NoError(t, err)
			require.Contains(t, string(plain), "from a ")
		}

		entries, err := os.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		require.Len(t, entries, 1)
	}
}

// TestPrintingAKeyringShowsNoKey prints a keyring in every way against the key's
// text in its file.
func TestPrintingAKeyringShowsNoKey(t *testing.T) {
	t.Parallel()

	keys, path := newKeys(t)
	text, err := os.ReadFile(path)
	require.NoError(t, err)

	_, value, found := strings.Cut(string(text), `"value":"`)
	require.True(t, found)
	value, _, _ = strings.Cut(value, `"`)

	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		require.NotContains(t, fmt.Sprintf(verb, keys), value)
	}
}
