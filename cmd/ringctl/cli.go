package main

import (
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// globals are the flags of every command.
type globals struct {
	Server    string        `default:"http://127.0.0.1:7076" env:"RINGMASTER_SERVER" help:"Address of an api, with its prefix if it has one." placeholder:"URL"`
	Token     string        `env:"RINGMASTER_TOKEN" help:"Bearer token. On the api's own host none is needed." placeholder:"T"`
	TokenFile string        `env:"RINGMASTER_TOKEN_FILE" help:"File that holds the token." placeholder:"FILE"`
	Data      string        `env:"RINGMASTER_DATA" help:"Data directory of an api on this host: its admin-token is used, for this host only." placeholder:"DIR"`
	CAFile    string        `env:"RINGMASTER_CA_FILE" help:"Certificates, in PEM, to trust beside the system's." name:"ca-file" placeholder:"FILE"`
	Output    string        `default:"table" enum:"table,json,yaml" env:"RINGMASTER_OUTPUT" help:"How to print what was found: ${enum}." placeholder:"FORMAT" short:"o"`
	Timeout   time.Duration `default:"30s" env:"RINGMASTER_TIMEOUT" help:"How long a request may take." placeholder:"DURATION"`
}

// cli is the whole command line.
type cli struct {
	globals `group:"Everywhere:"`

	Plan        planCmd              `cmd:"" help:"Show what an operation would do, without doing it."`
	Rebalance   startCmd[rebalance]  `cmd:"" help:"Move what a changed circle holds to its owners."`
	Recovery    startCmd[recovery]   `cmd:"" help:"Fill a circle from another one."`
	Resync      startCmd[resync]     `cmd:"" help:"Make all circles hold the same."`
	Clear       startCmd[clearMove]  `cmd:"" help:"Drop what backends hold and do not own, once its owner is proven to hold it."`
	Verify      startCmd[verifyMove] `cmd:"" help:"Compare what backends hold, and repair it if asked to."`
	Ops         opsCmd               `cmd:"" help:"List, follow and steer operations."`
	Where       whereCmd             `cmd:"" help:"Say which backends own a measurement."`
	Topology    topologyCmd          `cmd:"" help:"Show circles, backends and how they change."`
	Workers     workersCmd           `cmd:"" help:"List the workers that are alive."`
	Health      healthCmd            `cmd:"" help:"Say whether the api and the backends are well."`
	Doctor      doctorCmd            `cmd:"" help:"Examine the installation and say what to mend."`
	DeadLetters deadLettersCmd       `cmd:"" help:"Browse, retry and drop what could not be carried out."`
	Leases      leasesCmd            `cmd:"" help:"Say who holds what, and take it away."`
	Completion  completionCmd        `cmd:"" help:"Print a script that completes commands in a shell."`

	Version kong.VersionFlag `group:"Everywhere:" help:"Print the version and exit."`
}

// Help are the examples of the program.
func (*cli) Help() string {
	return examples(
		"ringctl plan rebalance --circle-id 0 --operation add",
		"ringctl rebalance --circle-id 0 --operation add --watch",
		"ringctl ops list --state running",
		"ringctl --server https://ringmaster.example:7076 --token-file token ops list -o json",
		"ringctl doctor",
	) + `
Exit codes: 0 done (an operation that was waited for has succeeded), 1 the command failed, 2 wrong usage,
3 the operation has partially failed, 4 it has failed, 5 it was cancelled, 130 interrupted.

Flags may have one dash or two. The flags below are also read from the environment, as RINGMASTER_SERVER,
RINGMASTER_TOKEN and so on.`
}

// examples is the part of a help text that every command has.
func examples(lines ...string) string {
	return "Examples:\n\n    " + strings.Join(lines, "\n    ") + "\n"
}

// command is a command line that was understood.
type command struct {
	flags   *cli
	context *kong.Context
}

func (c *command) globals() *globals { return &c.flags.globals }

func (c *command) run(a *app) error { return c.context.Run(a, c.context.Model) }

// newParser builds the parser of the command line into flags.
func newParser(flags *cli, stdout, stderr io.Writer, exit func(int)) (*kong.Kong, error) {
	return kong.New(flags,
		kong.Name("ringctl"),
		kong.Description("Steer the operations of a Ringmaster."),
		kong.Writers(stdout, stderr),
		kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, WrapUpperBound: 120}),
		kong.Vars{"version": "ringctl " + version()},
	)
}

// parse reads the command line. Without a command there is nothing more to do than
// to exit with the code.
func parse(args []string, stdout, stderr io.Writer) (*command, int) {
	flags := &cli{}
	// Help and version print and go on; they end the program here.
	ended, code := false, exitOK
	parser, err := newParser(flags, stdout, stderr, func(c int) { ended, code = true, c })
	if err != nil {
		fmt.Fprintln(stderr, "ringctl:", err)
		return nil, exitFailed
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	context, err := parser.Parse(doubleDashes(parser.Model.Node, args))
	switch {
	case ended:
		return nil, code
	case err != nil:
		fmt.Fprintf(stderr, "ringctl: %v\nringctl: %s --help says more\n", err, pathOf(err))
		return nil, exitUsage
	}
	return &command{flags, context}, exitOK
}

// pathOf is the command that a usage error is about.
func pathOf(err error) string {
	parse, ok := err.(*kong.ParseError) //nolint:errorlint // Parse returns it as it is
	if !ok || parse.Context == nil || parse.Context.Selected() == nil {
		return "ringctl"
	}
	return parse.Context.Selected().FullPath()
}

// doubleDashes gives the names of flags a second dash where they have one only, as
// the servers' flags may.
func doubleDashes(root *kong.Node, args []string) []string {
	known := longFlags(root)
	out := slices.Clone(args)
	for i, arg := range out {
		if arg == "--" {
			break
		}
		name, one := strings.CutPrefix(arg, "-")
		name, _, _ = strings.Cut(name, "=")
		if one && slices.Contains(known, name) {
			out[i] = "-" + arg
		}
	}
	return out
}

// longFlags are the names of all flags.
func longFlags(n *kong.Node) []string {
	var names []string
	for _, f := range n.Flags {
		names = append(append(names, f.Name), f.Aliases...)
	}
	for _, child := range n.Children {
		names = append(names, longFlags(child)...)
	}
	return names
}

// version is that of this build, as the Go tool recorded it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		v = "devel"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			v += "+" + s.Value[:12]
		}
	}
	return v
}
