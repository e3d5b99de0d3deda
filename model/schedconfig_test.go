package model

import (
	"errors"
	"testing"
)

func TestASchedulerConfigurationIsRefusedByItsField(t *testing.T) {
	for field, c := range map[string]SchedulerConfig{
		"":                              {}, // the defaults
		"SchedulerAlgorithm":            {SchedulerAlgorithm: "random"},
		"MemoryOversubscriptionEnabled": {MemoryOversubscriptionEnabled: true},
		"NodeLimitForFeasibilityChecks": {NodeLimitForFeasibilityChecks: 100},
		"PreemptionConfig.SystemSchedulerEnabled":   {PreemptionConfig: PreemptionConfig{SystemSchedulerEnabled: true}},
		"PreemptionConfig.ServiceSchedulerEnabled":  {PreemptionConfig: PreemptionConfig{ServiceSchedulerEnabled: true}},
		"PreemptionConfig.BatchSchedulerEnabled":    {PreemptionConfig: PreemptionConfig{BatchSchedulerEnabled: true}},
		"PreemptionConfig.SysBatchSchedulerEnabled": {PreemptionConfig: PreemptionConfig{SysBatchSchedulerEnabled: true}},
	} {
		err := c.Validate()
		var e *Error
		if field == "" {
			if err != nil || c != DefaultSchedulerConfig() {
				t.Errorf("the empty configuration became %+v, %v", c, err)
			}
			continue
		}
		want := KindUnsupported
		if field == "SchedulerAlgorithm" {
			want = KindInvalid
		}
		if !errors.As(err, &e) || e.Field != field || e.Kind != want {
			t.Errorf("%s: %v, want an error of kind %s about it", field, err, want)
		}
	}
}
