// A component over Elastic's Go client. Its units report the field "message" of their configurations, and each input answers the action
// "echo" with what it was sent.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/elastic/elastic-agent-client/v7/pkg/client"
)

type echo struct{ name string }

func (e echo) Name() string { return e.name }

func (e echo) Execute(_ context.Context, params map[string]interface{}) (map[string]interface{}, error) {
	return map[string]interface{}{"echo": params, "pid": os.Getpid()}, nil
}

func report(unit *client.Unit) {
	expected := unit.Expected()
	if expected.State == client.UnitStateStopped {
		_ = unit.UpdateState(client.UnitStateStopped, "stopped", nil)
		return
	}
	message := "no message"
	if fields := expected.Config.GetSource().GetFields(); fields["message"] != nil {
		message = fields["message"].GetStringValue()
	}
	_ = unit.UpdateState(client.UnitStateHealthy, fmt.Sprintf("%s (pid %d)", message, os.Getpid()), nil)
}

func added(unit *client.Unit) {
	if unit.Type() == client.UnitTypeInput {
		unit.RegisterAction(echo{unit.Expected().Config.GetType()})
		unit.RegisterDiagnosticHook("facts", "what the unit knows", "facts.txt", "text/plain",
			func() []byte { return []byte(fmt.Sprintf("the facts of pid %d\n", os.Getpid())) })
	}
	report(unit)
}

func main() {
	version := client.VersionInfo{Name: "foreign", BuildHash: "none"}
	agent, _, err := client.NewV2FromReader(os.Stdin, version)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := agent.Start(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer agent.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-agent.Errors():
			fmt.Fprintln(os.Stderr, err)
		case change := <-agent.UnitChanges():
			switch change.Type {
			case client.UnitChangedAdded:
				added(change.Unit)
			case client.UnitChangedModified:
				report(change.Unit)
			}
		}
	}
}
