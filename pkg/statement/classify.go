package statement

import (
	"fmt"

	"github.com/influxdata/influxql"
)

const (
	noUsers = "%s: users and their rights are not kept in the backends: they belong to Ringmaster, " +
		"so manage them there"
	noContinuous = "%s: a continuous query would run in every backend on its own part of the data only: " +
		"run the SELECT … INTO from a scheduler instead"
	noSubscriptions = "%s: a subscription would send what reaches one backend, several times over: " +
		"subscribe on each backend directly if you need that"
	noKill = "%s: query ids belong to one backend each, and several of them may run one query: " +
		"end the request that asked for it, or send KILL QUERY to the backend itself"
	noShards = "%s: shard ids belong to one backend each: " +
		"use DELETE or a retention policy, or send DROP SHARD to the backend itself"
)

// classify says how a statement is answered and, for Refused, why it is not.
func classify(ast influxql.Statement) (class Class, refusal string) {
	switch s := ast.(type) {
	case *influxql.SelectStatement:
		if s.Target != nil {
			return Into, ""
		}
		return Read, ""
	case *influxql.ExplainStatement:
		return Read, ""
	case *influxql.ShowDatabasesStatement, *influxql.ShowMeasurementsStatement, *influxql.ShowSeriesStatement,
		*influxql.ShowTagKeysStatement, *influxql.ShowTagValuesStatement, *influxql.ShowFieldKeysStatement,
		*influxql.ShowMeasurementCardinalityStatement, *influxql.ShowSeriesCardinalityStatement,
		*influxql.ShowTagKeyCardinalityStatement, *influxql.ShowTagValuesCardinalityStatement,
		*influxql.ShowFieldKeyCardinalityStatement:
		return ShowMerged, ""
	case *influxql.ShowRetentionPoliciesStatement:
		return ShowOne, ""
	case *influxql.ShowShardsStatement, *influxql.ShowShardGroupsStatement, *influxql.ShowStatsStatement,
		*influxql.ShowDiagnosticsStatement, *influxql.ShowQueriesStatement:
		return ShowAll, ""
	case *influxql.CreateDatabaseStatement, *influxql.CreateRetentionPolicyStatement:
		return CreateEverywhere, ""
	case *influxql.DeleteSeriesStatement, *influxql.DropSeriesStatement, *influxql.DropMeasurementStatement,
		*influxql.DropDatabaseStatement, *influxql.DropRetentionPolicyStatement, *influxql.AlterRetentionPolicyStatement,
		*influxql.DeleteStatement: // a form of DELETE that the parser never makes
		return DropEverywhere, ""
	default:
		return Refused, refusalOf(ast)
	}
}

func refusalOf(ast influxql.Statement) string {
	switch ast.(type) {
	case *influxql.CreateUserStatement:
		return fmt.Sprintf(noUsers, "CREATE USER")
	case *influxql.DropUserStatement:
		return fmt.Sprintf(noUsers, "DROP USER")
	case *influxql.SetPasswordUserStatement:
		return fmt.Sprintf(noUsers, "SET PASSWORD")
	case *influxql.GrantStatement, *influxql.GrantAdminStatement:
		return fmt.Sprintf(noUsers, "GRANT")
	case *influxql.RevokeStatement, *influxql.RevokeAdminStatement:
		return fmt.Sprintf(noUsers, "REVOKE")
	case *influxql.ShowUsersStatement:
		return fmt.Sprintf(noUsers, "SHOW USERS")
	case *influxql.ShowGrantsForUserStatement:
		return fmt.Sprintf(noUsers, "SHOW GRANTS")
	case *influxql.CreateContinuousQueryStatement:
		return fmt.Sprintf(noContinuous, "CREATE CONTINUOUS QUERY")
	case *influxql.DropContinuousQueryStatement:
		return fmt.Sprintf(noContinuous, "DROP CONTINUOUS QUERY")
	case *influxql.ShowContinuousQueriesStatement:
		return fmt.Sprintf(noContinuous, "SHOW CONTINUOUS QUERIES")
	case *influxql.CreateSubscriptionStatement:
		return fmt.Sprintf(noSubscriptions, "CREATE SUBSCRIPTION")
	case *influxql.DropSubscriptionStatement:
		return fmt.Sprintf(noSubscriptions, "DROP SUBSCRIPTION")
	case *influxql.ShowSubscriptionsStatement:
		return fmt.Sprintf(noSubscriptions, "SHOW SUBSCRIPTIONS")
	case *influxql.KillQueryStatement:
		return fmt.Sprintf(noKill, "KILL QUERY")
	case *influxql.DropShardStatement:
		return fmt.Sprintf(noShards, "DROP SHARD")
	default:
		return fmt.Sprintf("%T is not known here", ast)
	}
}

// newStatement classifies a statement and finds what a server would say about it
// at once.
func newStatement(ast influxql.Statement, d Defaults) *Statement {
	s := &Statement{AST: ast, defaults: d}
	s.Class, s.Refusal = classify(ast)
	s.Database = s.database()
	s.Fault = s.fault()
	return s
}
