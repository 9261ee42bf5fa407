/* For isolationtester behind pooler (see isolation.py): where it asks which process a session has, the session notes the name
 * that goes with it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>

int PQbackendPID(const PGconn *conn)
{
	int			(*real)(const PGconn *) = (int (*)(const PGconn *)) dlsym(RTLD_NEXT, "PQbackendPID");
	int			pid = real(conn);
	char		sql[200];
	PGresult   *result;

	snprintf(sql, sizeof sql, "INSERT INTO public.isolation_sessions VALUES (%d, current_setting('application_name'))", pid);
	result = PQexec((PGconn *) conn, sql);
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
	{
		fprintf(stderr, "%s", PQerrorMessage(conn));
		exit(1);
	}
	PQclear(result);
	return pid;
}
