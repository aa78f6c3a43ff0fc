package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// reload reads the configuration again whenever SIGHUP comes, until ctx ends.
func (s *system) reload(ctx context.Context) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			s.reconfigure(ctx)
		}
	}
}

// reconfigure applies the circles and the limits of the configuration file as they are
// now. A file that is wrong changes nothing, and the log names every mistake. What else the
// file says takes effect at the next start.
func (s *system) reconfigure(ctx context.Context) {
	again := &options{configFile: s.options.configFile}
	var mistakes []string
	again.readConfig(func(format string, a ...any) { mistakes = append(mistakes, fmt.Sprintf(format, a...)) })
	if len(mistakes) > 0 {
		s.logger.ErrorContext(ctx, "the configuration is wrong and was not applied", "mistakes", mistakes)
		return
	}
	decision, err := s.configuration.Apply(ctx, again.config.Topology())
	if open := (*serving.OpenError)(nil); errors.As(err, &open) {
		s.logger.WarnContext(ctx, "the configuration was not applied", "reason", open.Error())
		return
	}
	if err != nil {
		s.logger.ErrorContext(ctx, "applying the configuration", "error", err)
		return
	}
	for _, w := range again.config.Warnings {
		s.logger.WarnContext(ctx, "configuration", "warning", w.String())
	}
	if err := s.configuration.Limit(ctx, again.config.Topology(), again.config.Limits); err != nil {
		s.logger.ErrorContext(ctx, "applying the limits of the configuration", "error", err)
	}
	if decision == topology.Keep {
		s.logger.InfoContext(ctx, "the configuration says nothing new about the circles")
	}
}
