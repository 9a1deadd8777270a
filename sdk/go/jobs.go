package dhow

import "encoding/json"

// Job is work that is due later, kept durably. It has a schedule, a due time, or both. App.OnJob takes it when it is.
type Job struct {
	// Schedule: six-field cron (seconds first), "@every 5s", "@daily" and the like.
	Schedule string `json:"schedule,omitempty"`
	// DueTime: when it is first due: RFC 3339, a duration such as "90s", or an ISO 8601 duration.
	DueTime string `json:"dueTime,omitempty"`
	// Repeats: triggered this many times, then gone.
	Repeats int `json:"repeats,omitempty"`
	// TTL: gone after this time, in the forms of DueTime.
	TTL string `json:"ttl,omitempty"`
	// Data comes with each trigger.
	Data any `json:"data,omitempty"`
	// FailurePolicy: nil: three retries, a second apart.
	FailurePolicy *FailurePolicy `json:"failurePolicy,omitempty"`
	// Overwrite replaces a job of that name, which otherwise is a [Conflict].
	Overwrite bool `json:"overwrite,omitempty"`
}

// FailurePolicy says what happens when the app does not take a trigger: one of the two.
type FailurePolicy struct {
	// Drop: the trigger is lost.
	Drop *struct{} `json:"drop,omitempty"`
	// Constant: it is tried again.
	Constant *Retries `json:"constant,omitempty"`
}

// Retries says how often, and how long between two tries ("5s"). No MaxRetries: until one succeeds.
type Retries struct {
	Interval   string `json:"interval,omitempty"`
	MaxRetries *int   `json:"maxRetries,omitempty"`
}

// ScheduleJob keeps a job.
func ScheduleJob(name string, job Job) error {
	_, err := ask("POST", path("v1.0", "jobs", name), nil, job)
	return err
}

// GetJob reads the job of that name; its Data is a [json.RawMessage].
func GetJob(name string) (Job, error) {
	answer, err := ask("GET", path("v1.0", "jobs", name), nil, nil)
	if err != nil {
		return Job{}, err
	}
	var data json.RawMessage
	job := Job{Data: &data}
	err = answer.JSON(&job)
	job.Data = data
	return job, err
}

// DeleteJob forgets a job; one that does not exist is no error.
func DeleteJob(name string) error {
	_, err := ask("DELETE", path("v1.0", "jobs", name), nil, nil)
	return err
}
